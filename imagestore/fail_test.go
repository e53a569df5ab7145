// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil/testregistry"
)

// A connection that ends leaves what came over it, and the next pull asks for the rest.
func TestPullResumes(t *testing.T) {
	r := testregistry.Start(t)
	ref := r.Push(t, "heavy", build(t, heavy("resumed", 3<<20), heavy("small", 1000)))
	s := newStore(t)
	const cut = 2 << 20
	r.Fail(testregistry.Faults{CutAt: cut})
	_, err := tryPull(s, PullOptions{Ref: ref})
	if !errdefs.IsUnavailable(err) {
		t.Fatalf("a cut connection: %v, want ErrUnavailable", err)
	}
	if n := count(t, s, snapshots.KindActive); n != 0 {
		t.Errorf("%d half-done layers are left", n)
	}
	// Neither a load nor collecting garbage in between takes it away.
	loadOne(t, s, LoadOptions{Path: dockerArchive(t, build(t, heavy("other", 1000)))})
	_, err = s.GC(context.Background(), KeepUnfinished)
	must(t, err)
	r.Fail(testregistry.Faults{})
	r.Requests()
	pull(t, s, PullOptions{Ref: ref})
	ranges := 0
	for _, b := range r.Blobs() {
		if b.Range == "bytes=2097152-" {
			ranges++
		}
	}
	if ranges != 1 {
		t.Errorf("the download began anew")
	}
}

// What a failed pull has left goes when that is asked for.
func TestGCDropsUnfinished(t *testing.T) {
	r := testregistry.Start(t)
	ref := r.Push(t, "heavy", build(t, heavy("resumed", 3<<20), heavy("small", 1000)))
	s := newStore(t)
	r.Fail(testregistry.Faults{CutAt: 2 << 20})
	if _, err := tryPull(s, PullOptions{Ref: ref}); err == nil {
		t.Fatal("the pull worked")
	}
	ctx := s.Context(context.Background())
	found, err := s.Content().ListStatuses(ctx)
	if err != nil || len(found) != 1 {
		t.Errorf("downloads that can go on: %v, %v, want 1", found, err)
	}
	_, err = s.GC(ctx, DropUnfinished)
	must(t, err)
	checkNothing(t, s)
}

// checkNothing expects a store without images, layers, blobs and downloads.
func checkNothing(t *testing.T, s *Store) {
	t.Helper()
	ctx := s.Context(context.Background())
	found, err := s.Content().ListStatuses(ctx)
	must(t, err)
	held, err := s.hold(ctx)
	must(t, err)
	ls, err := s.Leases().List(ctx)
	must(t, err)
	if len(found) != 0 || held != (holdings{}) || len(ls) != 0 {
		t.Errorf("left: downloads %v, %+v, leases %v", found, held, ls)
	}
	for _, dir := range []string{"store/layers", "store/snapshots", "store/trash", "content/blobs/sha256", "content/ingest"} {
		entries, err := os.ReadDir(filepath.Join(s.Root(), dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range entries {
			t.Errorf("left: %s/%s", dir, e.Name())
		}
	}
}

func TestPullInterrupted(t *testing.T) {
	r := testregistry.Start(t)
	ref := r.Push(t, "heavy", build(t, heavy("slow", 4<<20), heavy("slow too", 4<<20)))
	s := newStore(t)
	r.Fail(testregistry.Faults{Delay: 10 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := s.Pull(ctx, PullOptions{Ref: ref, Resolver: NewResolver(ctx, nil), Progress: func(e Event) {
		if e.Step == StepDownload && e.Done > 1<<20 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("an interrupted pull: %v", err)
	}
	if n := count(t, s, snapshots.KindActive); n != 0 {
		t.Errorf("%d half-done layers are left", n)
	}
	if _, err := s.Get(context.Background(), ref, ""); !errdefs.IsNotFound(err) {
		t.Errorf("the image is there: %v", err)
	}
	r.Fail(testregistry.Faults{})
	r.Requests()
	pull(t, s, PullOptions{Ref: ref})
	ranges := 0
	for _, b := range r.Blobs() {
		if b.Range != "" {
			ranges++
		}
	}
	if ranges == 0 {
		t.Error("no download went on where it ended")
	}
}

// What a process was extracting when it was killed is in nobody's way.
func TestPullAfterKill(t *testing.T) {
	r := testregistry.Start(t)
	ref := r.Push(t, "sample", sample(t))
	s := newStore(t)
	ctx, _, err := s.lease(context.Background(), leases.WithLabels(map[string]string{labelPull: ref + ":latest"}))
	must(t, err)
	_, err = s.Snapshotter().Prepare(ctx, "extract-1-xyz sha256:abc", "")
	must(t, err)
	pull(t, s, PullOptions{Ref: ref})
	if n := count(t, s, snapshots.KindActive); n != 0 {
		t.Errorf("%d half-done layers are left", n)
	}
	if ls, err := s.Leases().List(ctx); err != nil || len(ls) != 0 {
		t.Errorf("leases %v, %v are left", ls, err)
	}
}

func TestPullFailures(t *testing.T) {
	r := testregistry.Start(t)
	img := build(t, heavy("h", 100_000))
	good := r.Push(t, "good:1", img)
	digest, err := img.Digest()
	must(t, err)
	wrong := strings.Repeat("0", 64)
	lies := r.Push(t, "lies", withConfig(t, build(t, heavy("lies", 1000)), func(c *v1.ConfigFile) {
		c.RootFS.DiffIDs = []v1.Hash{{Algorithm: "sha256", Hex: wrong}}
	}))
	short := r.Push(t, "short", withConfig(t, img, func(c *v1.ConfigFile) { c.RootFS.DiffIDs = nil }))
	s := newStore(t)
	for _, c := range []struct {
		name   string
		ref    string
		faults testregistry.Faults
		class  func(error) bool
		says   string
	}{
		{"reference", "Not A Name", testregistry.Faults{}, func(err error) bool { return errors.Is(err, ErrReference) }, "Not A Name"},
		{"repository", r.Ref("nothing"), testregistry.Faults{}, errdefs.IsNotFound, "nothing:latest"},
		{"tag", r.Ref("good:2"), testregistry.Faults{}, errdefs.IsNotFound, "good:2"},
		{"digest", r.Ref("good@sha256:" + wrong), testregistry.Faults{}, errdefs.IsNotFound, wrong},
		{"corrupt", good, testregistry.Faults{Corrupt: true}, errdefs.IsDataLoss, "something else"},
		{"5xx", good, testregistry.Faults{Refuse: http.StatusServiceUnavailable}, errdefs.IsUnavailable, "503"},
		{"forbidden", good, testregistry.Faults{Refuse: http.StatusForbidden}, errdefs.IsPermissionDenied, "403"},
		{"no login", good, testregistry.Faults{User: "me", Password: "secret"}, errdefs.IsPermissionDenied, "authoriz"},
		{"diffID", lies, testregistry.Faults{}, errdefs.IsDataLoss, wrong},
		{"config", short, testregistry.Faults{}, errdefs.IsDataLoss, "1 layers"},
		{"nobody", "127.0.0.1:1/x", testregistry.Faults{}, errdefs.IsUnavailable, "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.Fail(c.faults)
			_, err := tryPull(s, PullOptions{Ref: c.ref})
			if err == nil || !c.class(err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v: wrong class, or it says nothing of %q", err, c.says)
			}
			if n := count(t, s, snapshots.KindActive); n != 0 {
				t.Errorf("%d half-done layers are left", n)
			}
		})
	}
	// Nothing of all that is in the way of what works.
	r.Fail(testregistry.Faults{})
	pull(t, s, PullOptions{Ref: good})
	pull(t, s, PullOptions{Ref: r.Ref("good@" + digest.String())})
}

// A download that a power cut damaged is made again.
func TestPullDamagedRest(t *testing.T) {
	r := testregistry.Start(t)
	ref := r.Push(t, "heavy", build(t, heavy("resumed", 3<<20)))
	s := newStore(t)
	r.Fail(testregistry.Faults{CutAt: 2 << 20})
	if _, err := tryPull(s, PullOptions{Ref: ref}); err == nil {
		t.Fatal("the pull worked")
	}
	rests, err := filepath.Glob(filepath.Join(s.Root(), contentName, "ingest", "*", "data"))
	if err != nil || len(rests) != 1 {
		t.Fatalf("downloads that can go on: %v, %v", rests, err)
	}
	info, err := os.Stat(rests[0])
	must(t, err)
	must(t, os.WriteFile(rests[0], make([]byte, info.Size()), 0o600))
	r.Fail(testregistry.Faults{})
	pull(t, s, PullOptions{Ref: ref})
}

// An image one of whose layers somebody deleted is mended, and others with that layer are
// no longer said to be complete.
func TestPullMends(t *testing.T) {
	r := testregistry.Start(t)
	base, top := testimage.Layer{testimage.File("base", "b\n")}, testimage.Layer{testimage.File("top", "t\n")}
	first := r.Push(t, "first", build(t, base, top))
	other := r.Push(t, "other", build(t, base, testimage.Layer{testimage.File("other", "o\n")}))
	s := newStore(t)
	pull(t, s, PullOptions{Ref: first})
	pull(t, s, PullOptions{Ref: other})
	ctx := context.Background()
	dirs, err := s.Layers(ctx, first)
	must(t, err)
	must(t, os.RemoveAll(filepath.Dir(dirs[1])))
	if _, err := s.Layers(ctx, first); !errdefs.IsUnavailable(err) {
		t.Errorf("layers with one deleted: %v, want ErrUnavailable", err)
	}
	if _, err := tryPull(s, PullOptions{Ref: first, Policy: PolicyNever}); !errdefs.IsUnavailable(err) {
		t.Errorf("pull without the registry: %v, want ErrUnavailable", err)
	}
	image := pull(t, s, PullOptions{Ref: first})
	checkFile(t, mounted(t, s, image), "base", "b\n")
	image, err = s.Get(ctx, other, "")
	must(t, err)
	if err := s.Check(ctx, image); !errdefs.IsNotFound(err) {
		t.Errorf("the other image: %v, want ErrNotFound", err)
	}
	image = pull(t, s, PullOptions{Ref: other})
	must(t, s.Check(ctx, image))
}

// An emptied layer directory is only worth a warning; a container in the way of mending
// is named.
func TestDamagedLayers(t *testing.T) {
	r := testregistry.Start(t)
	ref := r.Push(t, "one", build(t, testimage.Layer{testimage.File("f", "f\n")}))
	s := newStore(t)
	image := pull(t, s, PullOptions{Ref: ref})
	ctx, done, err := s.Lease(context.Background())
	must(t, err)
	dirs, err := s.Layers(ctx, ref)
	must(t, err)
	must(t, os.Remove(filepath.Join(dirs[0], "f")))
	r.Requests()
	pull(t, s, PullOptions{Ref: ref})
	if requests := r.Requests(); len(requests) != 0 {
		t.Errorf("an image with an emptied layer was asked for: %v", requests)
	}
	_, err = s.Snapshotter().Prepare(ctx, "container", image.ChainID.String())
	must(t, err)
	must(t, os.Remove(dirs[0]))
	if _, err = tryPull(s, PullOptions{Ref: ref}); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "container") {
		t.Errorf("mending under a container: %v, want ErrFailedPrecondition that names it", err)
	}
	must(t, s.Snapshotter().Remove(ctx, "container"))
	pull(t, s, PullOptions{Ref: ref})
	err = nil
	done(&err)
	must(t, err)
}

func TestGC(t *testing.T) {
	r := testregistry.Start(t)
	shared := heavy("shared", 100_000)
	first := r.Push(t, "first", build(t, shared, heavy("a", 10_000)))
	second := r.Push(t, "second", build(t, shared, heavy("b", 10_000)))
	s := newStore(t)
	ctx := context.Background()
	pull(t, s, PullOptions{Ref: first})
	image := pull(t, s, PullOptions{Ref: second})
	if c, err := s.GC(ctx, KeepUnfinished); err != nil || c != (Collected{}) {
		t.Errorf("collected %+v, %v of what is needed", c, err)
	}
	_, err := s.Remove(ctx, first)
	must(t, err)
	c, err := s.GC(ctx, KeepUnfinished)
	// A manifest, a configuration and the layer that only the first had.
	if err != nil || c.Blobs != 3 || c.Snapshots != 1 || c.Bytes < 20_000 {
		t.Errorf("collected %+v, %v", c, err)
	}
	must(t, s.Check(ctx, image))
	_, err = s.Remove(ctx, second)
	must(t, err)
	_, err = s.GC(ctx, KeepUnfinished)
	must(t, err)
	checkNothing(t, s)
	if _, err := s.Remove(ctx, second); !errdefs.IsNotFound(err) {
		t.Errorf("remove what is not here: %v, want ErrNotFound", err)
	}
}

// Files that a crash left without a record go, too.
func TestGCOrphans(t *testing.T) {
	s := newStore(t)
	ctx := context.Background()
	blobs := filepath.Join(s.Root(), contentName, "blobs", "sha256")
	must(t, os.MkdirAll(blobs, 0o755))
	must(t, os.WriteFile(filepath.Join(blobs, strings.Repeat("1", 64)), []byte("orphan"), 0o600))
	_, err := s.Strata().Prepare(ctx, "default/99/orphan", "")
	must(t, err)
	_, err = s.GC(ctx, KeepUnfinished)
	must(t, err)
	checkNothing(t, s)
}

func TestTag(t *testing.T) {
	r := testregistry.Start(t)
	img := build(t, heavy("a", 1000))
	ref := r.Push(t, "a:1", img)
	other := r.Push(t, "b:1", mutate.Annotations(img, map[string]string{"x": "y"}).(v1.Image))
	s := newStore(t)
	ctx := context.Background()
	image := pull(t, s, PullOptions{Ref: ref})
	pull(t, s, PullOptions{Ref: other})
	name, err := s.Tag(ctx, ref, "mine")
	if err != nil || name != "docker.io/library/mine:latest" {
		t.Errorf("Tag gives %q, %v", name, err)
	}
	_, err = s.Tag(ctx, other, "mine")
	must(t, err)
	_, err = s.Tag(ctx, ref, "mine")
	must(t, err)
	if found, err := s.Get(ctx, "mine", ""); err != nil || found.Target.Digest != image.Target.Digest {
		t.Errorf("the new name stands for %+v, %v", found.Target, err)
	}
	_, err = s.Tag(ctx, other, "mine@"+image.Target.Digest.String())
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("a digest that is another's: %v, want ErrInvalidArgument", err)
	}
	if _, err := s.Tag(ctx, "nothing", "mine"); !errdefs.IsNotFound(err) {
		t.Errorf("tag what is not here: %v, want ErrNotFound", err)
	}
}
