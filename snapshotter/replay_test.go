// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// mustUnpackNeedy unpacks a layer that has to ask its parents, and that nobody knows
// everything of without its blob. It becomes the last piece of the library.
func (l *library) mustUnpackNeedy(t *testing.T, s *Snapshotter) {
	t.Helper()
	l.descs = append(l.descs, l.add(t, file("d/f"), file("d/f")))
	l.unpack(t, s, "needy-base", "", false, l.descs[0])
	l.unpack(t, s, "needy", "needy-base", false, l.descs[len(l.descs)-1])
}

// A layer with needs is neither fetched nor extracted where the parent comes with Commit:
// what it needs is answered then.
func TestStagedLayerWithNeeds(t *testing.T) {
	s, l := openSharing(t, Config{})
	first := l.mustPull(t, s, plain1, 0, 2)
	l.mustPull(t, s, plain1, 1)
	extractions := s.counts.extracted.Load()
	second := l.mustPull(t, s, staged, 1, 2)
	if got := s.counts.extracted.Load(); got != extractions {
		t.Errorf("%d layers were extracted", got-extractions)
	}
	if layerOf(t, s, first[1]) != layerOf(t, s, second[1]) || patchOf(t, s, first[1]) == patchOf(t, s, second[1]) {
		t.Error("not one layer with two patches")
	}
	checkStore(t, s)
}

// linked is a layer with a directory that is a link below, and two bases.
type linked struct {
	onDir, onLink, top ocispec.Descriptor
}

func (l library) linked(t *testing.T) linked {
	t.Helper()
	return linked{
		onDir:  l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "lib/", Uid: 4}),
		onLink: l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "usr/lib/", Uid: 5}, file("usr/lib/gone"), tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib"}),
		top: l.add(t, file("usr/lib/x"), file("lib/x"), tar.Header{Typeflag: tar.TypeReg, Name: "lib/.wh.gone"},
			tar.Header{Typeflag: tar.TypeLink, Name: "usr/y", Linkname: "lib/x"}),
	}
}

// stageTop prepares an extraction of the layer that is here, whose parent comes later.
func (l linked) stageTop(t *testing.T, s *Snapshotter, key string) snapshots.Opt {
	t.Helper()
	opt := labels(snapshots.LabelSnapshotRef, "ref-"+key, snapshots.LabelSnapshotDiffID, l.top.Digest.String(), parentLabel, "parent")
	if m := prepare(t, s, key, "", opt); !m[0].ReadOnly() {
		t.Fatalf("it is not staged: %v", m)
	}
	return opt
}

func shownBy(t *testing.T, s *Snapshotter, name string) (tree layertest.Tree) {
	t.Helper()
	key := "view-" + name
	m, err := s.View(ctx, key, name)
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, m, func(dir string) {
		if tree, err = layertest.Dump(dir); err != nil {
			t.Fatal(err)
		}
	})
	mustRemove(t, s, key)
	for path := range tree {
		tree.Touch(path) // some are of the time of extraction
	}
	return tree
}

// The layer of a staged snapshot has to be extracted onto those below, and nobody fetched
// its blob: it becomes what its blob becomes, for this chain alone.
func TestStagedLayerThatIsExtractedOntoItsParent(t *testing.T) {
	s, l := openSharing(t, Config{})
	k := l.linked(t)
	l.unpack(t, s, "dir", "", false, k.onDir)
	l.unpack(t, s, "dir-top", "dir", false, k.top)
	l.unpack(t, s, "link", "", false, k.onLink)
	l.unpack(t, s, "link-top", "link", false, k.top) // of the blob
	opt := k.stageTop(t, s, "default/9/extract-x")
	opt2 := k.stageTop(t, s, "default/9/extract-y")
	mustRemove(t, s, "dir-top")
	l.layers[k.top.Digest] = nil // of nobody any more
	s = reopen(t, s)
	s.UseUnpacker(l)
	mustCommit(t, s, "staged-top", "default/9/extract-x", opt, snapshots.WithParent("link"))
	mustCommit(t, s, "staged-dir-top", "default/9/extract-y", opt2, snapshots.WithParent("dir"))
	if want, got := shownBy(t, s, "link-top"), shownBy(t, s, "staged-top"); !reflect.DeepEqual(want, got) {
		t.Errorf("the blob: %v\nwithout: %v", want, got)
	}
	mounted(t, prepare(t, s, "c", "staged-top"), func(dir string) {
		if got := list(t, filepath.Join(dir, "usr/lib")); !slices.Equal(got, []string{"x"}) {
			t.Errorf("usr/lib holds %v", got)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "usr/y")); err != nil || !bytes.Equal(b, []byte("lib/x")) {
			t.Errorf("usr/y holds %q, %v", b, err)
		}
	})
	m, err := s.store.ReadManifest(layerOf(t, s, "staged-top"))
	if err != nil || m.DiffID != "" || len(m.Needs) > 0 {
		t.Errorf("%+v, %v", m, err)
	}
	checkStore(t, s)
	mustRemove(t, s, "c")
	emptyOut(t, s)
	if n := layerDirs(t, s); n != 0 {
		t.Errorf("%d layers of nobody", n)
	}
}

// A parent that the layer does not go with is an error of the image, and the snapshot can
// still be committed on another or removed.
func TestStagedLayerThatItsParentRefuses(t *testing.T) {
	s, l := openSharing(t, Config{})
	k := l.linked(t)
	l.unpack(t, s, "dir", "", false, k.onDir)
	l.unpack(t, s, "dir-top", "dir", false, k.top)
	l.unpack(t, s, "file", "", false, l.add(t, file("usr"), tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr"}))
	for i, last := range []func(key string, opt snapshots.Opt){
		func(key string, opt snapshots.Opt) { mustCommit(t, s, "top", key, opt, snapshots.WithParent("dir")) },
		func(key string, _ snapshots.Opt) { mustRemove(t, s, key) },
	} {
		key := fmt.Sprintf("default/%d/extract-x", i)
		opt := k.stageTop(t, s, key)
		if err := s.Commit(ctx, "bad", key, opt, snapshots.WithParent("file")); !errdefs.IsInvalidArgument(err) {
			t.Errorf("got %v", err)
		}
		last(key, opt)
		checkStore(t, s)
	}
	if layerOf(t, s, "top") != layerOf(t, s, "dir-top") {
		t.Error("the layer is here twice")
	}
}
