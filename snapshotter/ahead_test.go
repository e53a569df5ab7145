// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// openAhead opens a root that layers are extracted into before they are asked for.
func openAhead(t *testing.T, cfg Config) (*Snapshotter, library) {
	t.Helper()
	cfg.UnpackAhead = 1
	return openSharing(t, cfg)
}

func (l layers) extractAlone(desc ocispec.Descriptor) Extract {
	return func(ctx context.Context, dir *os.File, opts archive.Options) (archive.Result, error) {
		return archive.Apply(ctx, archive.FromReader(bytes.NewReader(l[desc.Digest])), dir, opts)
	}
}

// upcoming is the topmost layer of an image, which is not compressed.
func (l library) upcoming(image ...int) AheadLayer {
	last := len(image) - 1
	desc := l.descs[image[last]]
	next := AheadLayer{Namespace: "default", Blob: desc, DiffID: desc.Digest, ChainID: digest.Digest(l.chainID(image))}
	if last > 0 {
		next.Below = digest.Digest(l.chainID(image[:last]))
	}
	return next
}

func (l library) ahead(t *testing.T, s *Snapshotter, image ...int) {
	t.Helper()
	next := l.upcoming(image...)
	if err := s.Ahead(ctx, next, l.extractAlone(next.Blob)); err != nil {
		t.Fatal(err)
	}
}

// unpackAhead extracts all layers of a library ahead but the lowest. Those of an image that is
// refused may be.
func (l library) unpackAhead(t *testing.T, s *Snapshotter, refused bool) {
	t.Helper()
	for i := 1; i < len(l.descs); i++ {
		next := l.upcoming(l.image()[:i+1]...)
		if err := s.Ahead(ctx, next, l.extractAlone(next.Blob)); err != nil && !refused {
			t.Fatal(err)
		}
	}
}

// unwanted takes out what nobody asked for.
func (a *ahead) unwanted() []*aheadEntry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unused()
}

// Images are what their layers mean, in every way in which a client can unpack them, if all
// layers but the lowest were extracted ahead.
func TestMergeCasesAhead(t *testing.T) {
	s, _ := openAhead(t, Config{Durability: DurabilityNone})
	for _, c := range overrideCases(t) {
		for how := range ways {
			t.Run(fmt.Sprintf("%s/%d", c.ID, how), func(t *testing.T) {
				l := c.library(t)
				s.UseUnpacker(l)
				l.unpackAhead(t, s, c.Expect.Error)
				made, err := l.pull(t, s, l.image(), how)
				s.dropAhead(ctx, s.ahead.unwanted())
				if c.Expect.Error {
					if !errdefs.IsInvalidArgument(err) {
						t.Errorf("refused with %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				m, err := s.View(ctx, "default/9/look", made[len(made)-1])
				if err != nil {
					t.Fatal(err)
				}
				mounted(t, m, func(dir string) {
					got, err := layertest.Dump(dir)
					if err != nil {
						t.Fatal(err)
					}
					if diffs := c.Expect.Tree.Diff(got); len(diffs) > 0 {
						t.Errorf("the wrong tree:\n%s", strings.Join(diffs, "\n"))
					}
				})
				mustRemove(t, s, "default/9/look")
				emptyOut(t, s)
			})
		}
	}
	if got := s.Stats(); got.Ahead == 0 {
		t.Error("nothing was unpacked ahead")
	}
}

// Layers that were extracted ahead are found by whatever a client says of them, and nothing
// is extracted when they are asked for.
func TestAheadIsFound(t *testing.T) {
	for how := range ways {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			s, l := openAhead(t, Config{})
			l.mustPull(t, s, plain1, 0)
			l.ahead(t, s, 0, 7)
			l.ahead(t, s, 0, 7, 6)
			if n := layerDirs(t, s); n != 3 {
				t.Errorf("%d layers, want 3", n)
			}
			if err := s.Cleanup(ctx); err != nil { // must leave them alone
				t.Fatal(err)
			}
			made := l.mustPull(t, s, how, 0, 7, 6)
			if got := s.Stats(); got.Extracted != 1 || got.Ahead != 2 || got.AheadDropped != 0 {
				t.Errorf("%+v", got)
			}
			checkStore(t, s)
			s = reopen(t, s)
			s.UseUnpacker(l)
			checkStore(t, s)
			l.mustPull(t, s, blobs, 1, 7) // the blob is remembered, too
			if got := s.Stats(); got.Extracted != 1 || got.Shared != 1 {
				t.Errorf("%+v", got)
			}
			if err := l.check(s, made[2], []int{0, 7, 6}); err != nil {
				t.Error(err)
			}
			emptyOut(t, s)
			if n := layerDirs(t, s); n != 0 {
				t.Errorf("%d layers of nobody", n)
			}
		})
	}
}

// Prepare says that the layer is there whenever it can tell which one is meant.
func TestPrepareOfALayerAhead(t *testing.T) {
	for _, how := range []way{plain1, diffIDs, blobs} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			s, l := openAhead(t, Config{})
			base := l.mustPull(t, s, plain1, 0)[0]
			l.ahead(t, s, 0, 7)
			opt := snapshots.WithLabels(l.labels([]int{0, 7}, how))
			if _, err := s.Prepare(ctx, "default/9/extract-x", base, opt); !errdefs.IsAlreadyExists(err) {
				t.Fatalf("got %v", err)
			}
			if err := l.check(s, "default/9/extract-x", []int{0, 7}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A layer that a chain can't use is there for Apply, which may have other layers below.
func TestLayerAheadThatAChainCannotUse(t *testing.T) {
	s, l := openAhead(t, Config{})
	top := l.add(t, file("lib/x"))
	l.unpack(t, s, "link", "", false, l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "usr/lib/"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib"}))
	next := AheadLayer{Namespace: "default", Blob: top, DiffID: top.Digest, ChainID: digest.FromString("chain")}
	if err := s.Ahead(ctx, next, l.extractAlone(top)); err != nil {
		t.Fatal(err)
	}
	m := prepare(t, s, "default/9/extract-x", "link", labels(snapshots.LabelSnapshotRef, next.ChainID.String()))
	if m[0].ReadOnly() || !s.ahead.has(top.Digest) {
		t.Errorf("mounts %v", m)
	}
	if err := l.apply(t, s, m, top); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "top", "default/9/extract-x")
	mounted(t, prepare(t, s, "c", "top"), func(dir string) {
		if got := list(t, filepath.Join(dir, "usr/lib")); len(got) != 1 || got[0] != "x" {
			t.Errorf("usr/lib holds %v", got)
		}
	})
	if n := layerDirs(t, s); n != 2 {
		t.Errorf("%d layers, want 2", n)
	}
}

// Apply, whose snapshot was made before, finds the layer by its blob.
func TestAheadIsFoundByApply(t *testing.T) {
	s, l := openAhead(t, Config{})
	base := l.mustPull(t, s, plain1, 0)[0]
	x := l.extraction(t, s, base, 0, 7)
	l.ahead(t, s, 0, 7)
	st := stage(t, s, x.mounts, l.descs[7])
	if !st.MayAdopt() {
		t.Error("MayAdopt says no")
	}
	got, adopted, err := st.Adopt(ctx)
	if err != nil || !adopted || got.DiffID != l.descs[7].Digest || got.Inodes != 3 {
		t.Fatalf("%+v, %v, %v", got, adopted, err)
	}
	if err := st.Release(); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "top", x.key, x.opt)
	if err := l.check(s, "top", []int{0, 7}); err != nil {
		t.Error(err)
	}
	if got := s.Stats(); got.Ahead != 1 || got.Adopted != 0 {
		t.Errorf("%+v", got)
	}
}

// Apply waits for the layer that is being extracted ahead.
func TestApplyWaitsForAhead(t *testing.T) {
	s, l := openAhead(t, Config{})
	x := l.extraction(t, s, "", 7)
	next := l.upcoming(7)
	begun, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Ahead(ctx, next, func(ctx context.Context, dir *os.File, opts archive.Options) (archive.Result, error) {
			close(begun)
			<-goOn
			return l.extractAlone(next.Blob)(ctx, dir, opts)
		})
	}()
	<-begun
	got := make(chan bool, 1)
	go func() {
		st, err := s.Stage(ctx, x.mounts, next.Blob)
		if err != nil {
			t.Error(err)
			got <- false
			return
		}
		_, adopted, err := st.Adopt(ctx)
		if err := errors.Join(err, st.Release()); err != nil {
			t.Error(err)
		}
		got <- adopted
	}()
	// Prepare does not wait for long: it makes a snapshot to extract into.
	y := prepare(t, s, "default/99/extract-y", "", snapshots.WithLabels(l.labels([]int{7}, diffIDs)))
	if y[0].ReadOnly() {
		t.Errorf("mounts %v", y)
	}
	close(goOn)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !<-got {
		t.Error("the layer was extracted twice")
	}
	mustRemove(t, s, "default/99/extract-y")
}

// A layer that asks something of those below is answered by each chain, as any other.
func TestAheadWithNeeds(t *testing.T) {
	for _, how := range []way{plain1, diffIDs, blobs, late} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			s, l := openAhead(t, Config{})
			l.mustPull(t, s, plain1, 0)
			l.ahead(t, s, 0, 2)
			first := l.mustPull(t, s, how, 0, 2)
			second := l.mustPull(t, s, diffIDs, 1, 2)
			if a, b := layerOf(t, s, first[1]), layerOf(t, s, second[1]); a != b {
				t.Errorf("layers %d and %d", a, b)
			}
			if got := s.Stats(); got.Ahead != 1 {
				t.Errorf("%+v", got)
			}
			checkStore(t, s)
		})
	}
}

// What can only be extracted onto the layers below, fails, or is not what its image says,
// leaves nothing.
func TestAheadThatIsOfNoUse(t *testing.T) {
	s, l := openAhead(t, Config{})
	link := l.add(t, tar.Header{Typeflag: tar.TypeLink, Name: "g", Linkname: "f"})
	next := AheadLayer{Namespace: "default", Blob: link, DiffID: link.Digest}
	if err := s.Ahead(ctx, next, l.extractAlone(link)); err != nil {
		t.Error(err)
	}
	broken := errors.New("broken")
	err := s.Ahead(ctx, l.upcoming(7), func(ctx context.Context, dir *os.File, opts archive.Options) (archive.Result, error) {
		_, err := l.extractAlone(l.descs[7])(ctx, dir, opts)
		return archive.Result{}, errors.Join(err, broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	other := l.upcoming(7)
	other.DiffID = digest.FromString("x")
	if err := s.Ahead(ctx, other, l.extractAlone(other.Blob)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	for _, dir := range []string{"layers", "snapshots", "staging"} {
		if got := list(t, filepath.Join(s.cfg.Root, dir)); len(got) != 0 {
			t.Errorf("%s holds %v", dir, got)
		}
	}
	l.mustPull(t, s, diffIDs, 7)
}

// What is here, or on its way, is not extracted ahead.
func TestAheadOfWhatIsHere(t *testing.T) {
	s, l := openAhead(t, Config{})
	never := func(context.Context, *os.File, archive.Options) (archive.Result, error) {
		t.Error("extracted")
		return archive.Result{}, errors.New("no")
	}
	check := func(name string) {
		t.Helper()
		if err := s.Ahead(ctx, l.upcoming(7), never); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	x := l.extraction(t, s, "", 7)
	st := stage(t, s, x.mounts, l.descs[7])
	check("being extracted")
	result, err := l.extract(st, l.descs[7])
	if err := errors.Join(err, st.Seal(ctx, l.descs[7], result), st.Release()); err != nil {
		t.Fatal(err)
	}
	check("extracted and not committed")
	mustCommit(t, s, "one", x.key, x.opt)
	check("committed")
	mustRemove(t, s, "one")
	l.ahead(t, s, 7)
	check("extracted ahead")
	s.dropAhead(ctx, s.ahead.close())
}

// A namespace that has not got the blob is not given the layer by Prepare.
func TestAheadWithinANamespace(t *testing.T) {
	s, l := openAhead(t, Config{Sharing: SharingNamespace})
	l.ahead(t, s, 7)
	opt := snapshots.WithLabels(l.labels([]int{7}, diffIDs))
	prepare(t, s, "other/9/extract-x", "", opt)
	if _, err := s.Prepare(ctx, "default/9/extract-x", "", opt); !errdefs.IsAlreadyExists(err) {
		t.Errorf("the namespace that it was extracted for: %v", err)
	}
	mustRemove(t, s, "other/9/extract-x")
}

func TestAheadIsOff(t *testing.T) {
	for name, cfg := range map[string]Config{"sharing": {Sharing: SharingOff, UnpackAhead: 1}, "ahead": {}} {
		t.Run(name, func(t *testing.T) {
			s, l := openSharing(t, cfg)
			if n := s.UnpackAhead(); n != 0 {
				t.Errorf("%d at once", n)
			}
			if err := s.Ahead(ctx, l.upcoming(7), l.extractAlone(l.descs[7])); !errdefs.IsFailedPrecondition(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// What nobody asked for goes when the snapshotter is closed, and what is being extracted
// then ends.
func TestCloseEndsAhead(t *testing.T) {
	s, l := openAhead(t, Config{})
	l.ahead(t, s, 6)
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Ahead(ctx, l.upcoming(7), func(ctx context.Context, _ *os.File, _ archive.Options) (archive.Result, error) {
			close(begun)
			<-ctx.Done()
			return archive.Result{}, ctx.Err()
		})
	}()
	<-begun
	s2 := reopen(t, s)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := s.Ahead(ctx, l.upcoming(7), l.extractAlone(l.descs[7])); !errdefs.IsUnavailable(err) {
		t.Errorf("after Close: %v", err)
	}
	if n := layerDirs(t, s2); n != 0 {
		t.Errorf("%d layers of nobody", n)
	}
}

// A crash leaves layers that nothing names. They go with the next start.
func TestCrashWithLayersAhead(t *testing.T) {
	testutil.RequireTool(t, "cp")
	s, l := openAhead(t, Config{})
	made := l.mustPull(t, s, plain1, 0)
	l.ahead(t, s, 0, 7)
	crashed := filepath.Join(testutil.Tmpfs(t), "root")
	if out, err := exec.Command("cp", "-a", s.cfg.Root, crashed).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	after, l2 := openAhead(t, Config{Root: crashed})
	if n := layerDirs(t, after); n != 1 {
		t.Errorf("%d layers, want 1", n)
	}
	if err := l2.check(after, made[0], []int{0}); err != nil {
		t.Error(err)
	}
	checkStore(t, after)
	s.dropAhead(ctx, s.ahead.close())
}
