// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil/testregistry"
)

func TestPull(t *testing.T) {
	r := testregistry.Start(t)
	ref := r.Push(t, "sample:1", sample(t))
	s := newStore(t)
	var seen events
	image := pull(t, s, PullOptions{Ref: ref, Progress: seen.tell})
	if image.Name != ref || image.Labels[LabelPlatform] != "" {
		t.Errorf("pulled %+v", image)
	}
	checkSample(t, mounted(t, s, image))
	if n := seen.count(StepLayerDone); n != 5 {
		t.Errorf("%d layers were unpacked, want 5", n)
	}
	if n := count(t, s, snapshots.KindActive); n != 0 {
		t.Errorf("%d active snapshots are left", n)
	}
	for i, l := range image.Layers { // by which an archive with the bare tar finds the blob
		info, err := s.Content().Info(s.Context(context.Background()), l.Digest)
		if err != nil || info.Labels[labels.LabelUncompressed] != image.DiffIDs[i].String() {
			t.Errorf("blob %s is labelled %v, %v", l.Digest, info.Labels, err)
		}
	}
	r.Requests()
	seen = events{}
	if again := pull(t, s, PullOptions{Ref: ref, Progress: seen.tell}); again.Target.Digest != image.Target.Digest {
		t.Errorf("the second pull gives %s, the first %s", again.Target.Digest, image.Target.Digest)
	}
	if requests := r.Requests(); len(requests) != 0 || seen.count(StepComplete) != 1 {
		t.Errorf("a complete image was asked for: %v", requests)
	}
	seen = events{}
	pull(t, s, PullOptions{Ref: ref, Policy: PolicyAlways, Progress: seen.tell})
	if requests := r.Requests(); len(requests) != 1 || seen.count(StepExists) != 5 {
		t.Errorf("--policy always of what is here: %v, %d layers exist", requests, seen.count(StepExists))
	}
}

// Directories come top first, each once, and without the layers that add nothing.
func TestLayers(t *testing.T) {
	r := testregistry.Start(t)
	one := testimage.Layer{testimage.File("one", "1\n")}
	two := testimage.Layer{testimage.File("two", "2\n")}
	ref := r.Push(t, "twice", build(t, one, two, one, testimage.Layer{}))
	s := newStore(t)
	image := pull(t, s, PullOptions{Ref: ref})
	dirs, err := s.Layers(context.Background(), ref)
	must(t, err)
	if len(dirs) != 2 {
		t.Fatalf("directories %q, want 2", dirs)
	}
	checkFile(t, dirs[0], "one", "1\n")
	checkFile(t, dirs[1], "two", "2\n")
	if chain, err := s.Chain(context.Background(), image); err != nil || len(chain) != 4 {
		t.Errorf("chain %+v, %v, want 4 layers", chain, err)
	}
}

func TestLayersOfNothing(t *testing.T) {
	r := testregistry.Start(t)
	s := newStore(t)
	for name, img := range map[string]PullOptions{
		"no layer":    {Ref: r.Push(t, "none", build(t))},
		"empty layer": {Ref: r.Push(t, "empty", build(t, testimage.Layer{}))},
	} {
		pull(t, s, img)
		dirs, err := s.Layers(context.Background(), img.Ref)
		if err != nil || len(dirs) != 1 || !strings.HasSuffix(dirs[0], "/empty") {
			t.Errorf("%s: directories %q, %v, want the empty one", name, dirs, err)
		}
	}
}

// Pulls at the same time don't get in each other's way: what one extracts is not what a
// killed process left.
func TestPullsAtOnce(t *testing.T) {
	r := testregistry.Start(t)
	shared := heavy("shared", 200_000)
	first := r.Push(t, "first:1", build(t, heavy("a", 400_000), shared))
	second := r.Push(t, "second:1", build(t, heavy("b", 400_000), shared))
	s := newStore(t)
	r.Fail(testregistry.Faults{Delay: 10 * time.Millisecond})
	var g errgroup.Group
	start := sync.OnceFunc(func() {
		g.Go(func() error {
			_, err := tryPull(s, PullOptions{Ref: second})
			return err
		})
	})
	image := pull(t, s, PullOptions{Ref: first, Progress: func(e Event) {
		if e.Step == StepDownload {
			start()
		}
	}})
	must(t, s.Check(context.Background(), image))
	must(t, g.Wait())
}

func TestPolicyNever(t *testing.T) {
	r := testregistry.Start(t)
	ref := r.Push(t, "sample:1", sample(t))
	_, err := tryPull(newStore(t), PullOptions{Ref: ref, Policy: PolicyNever})
	if !errdefs.IsNotFound(err) || len(r.Requests()) != 0 {
		t.Errorf("an image that is not here: %v, want ErrNotFound and no request", err)
	}
}

// Of a second image only those layers are fetched that are not here, wherever in it they
// are.
func TestPullShares(t *testing.T) {
	r := testregistry.Start(t)
	shared, other := heavy("shared", 100_000), heavy("other", 1000)
	first := r.Push(t, "first", build(t, heavy("base", 1000), shared))
	second := r.Push(t, "second", build(t, other, shared, heavy("top", 1000)))
	s := newStore(t)
	pull(t, s, PullOptions{Ref: first})
	r.Requests()
	var seen events
	image := pull(t, s, PullOptions{Ref: second, Progress: seen.tell})
	if blobs := r.Blobs(); len(blobs) != 3 { // a configuration and two layers
		t.Errorf("blobs were fetched: %v", blobs)
	}
	if exist, unpacked := seen.count(StepExists), seen.count(StepUnpack); exist != 1 || unpacked != 2 {
		t.Errorf("%d layers exist and %d were unpacked, want 1 and 2", exist, unpacked)
	}
	ctx := s.Context(context.Background())
	must(t, s.checkBlobs(ctx, image))
}

// A layer that is known by its content is not fetched, compressed in whatever way; what
// has to be saved is, if that is asked for.
func TestPullBlobs(t *testing.T) {
	r := testregistry.Start(t)
	layer := heavy("shared", 100_000)
	first := r.Push(t, "first", build(t, layer))
	second := r.Push(t, "second", zstdLayers(t, build(t, layer)))
	s := newStore(t)
	pull(t, s, PullOptions{Ref: first})
	r.Requests()
	image := pull(t, s, PullOptions{Ref: second})
	if blobs := r.Blobs(); len(blobs) != 0 { // the configuration is the same, too
		t.Errorf("blobs were fetched for a layer that is here: %v", blobs)
	}
	if err := s.checkBlobs(s.Context(context.Background()), image); !errdefs.IsNotFound(err) {
		t.Errorf("blobs: %v, want ErrNotFound", err)
	}
	if err := s.Save(context.Background(), nil, second); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "layer 1") {
		t.Errorf("save without a blob: %v", err)
	}
	pull(t, s, PullOptions{Ref: second, Blobs: true})
	must(t, s.checkBlobs(s.Context(context.Background()), image))
}

func TestPullPlatforms(t *testing.T) {
	r := testregistry.Start(t)
	native, foreign := sample(t), forPlatform(t, build(t, heavy("foreign", 1000)), "arm64", "v8")
	ref := r.PushIndex(t, "multi:1", indexOf(t, native, foreign))
	s := newStore(t)
	image := pull(t, s, PullOptions{Ref: ref})
	if len(image.DiffIDs) != 5 {
		t.Errorf("this machine's image has %d layers", len(image.DiffIDs))
	}
	r.Requests()
	_, err := tryPull(s, PullOptions{Ref: ref, Platform: "linux/riscv64"})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("a platform that is not there: %v, want ErrNotFound that says what is", err)
	}
	if _, err := tryPull(s, PullOptions{Ref: ref, Platform: "my computer"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no platform: %v, want ErrPlatform", err)
	}
	r.Requests()
	if image = pull(t, s, PullOptions{Ref: ref, Platform: "linux/arm64"}); image.Platform.Architecture != "arm64" {
		t.Errorf("pulled %+v", image.Platform)
	}
	// From now on the name stands for that.
	if image, err = s.Get(context.Background(), ref, ""); err != nil || image.Platform.Architecture != "arm64" {
		t.Errorf("found %+v, %v", image.Platform, err)
	}
	r.Requests()
	pull(t, s, PullOptions{Ref: ref, Platform: "linux/arm64"})
	if requests := r.Requests(); len(requests) != 0 {
		t.Errorf("a complete image was asked for: %v", requests)
	}
	pull(t, s, PullOptions{Ref: ref})
	if requests := r.Requests(); len(requests) == 0 {
		t.Error("the image of another platform was taken")
	}
	single := r.Push(t, "single", foreign)
	if _, err := tryPull(s, PullOptions{Ref: single, Platform: "linux/riscv64"}); !errdefs.IsNotFound(err) {
		t.Errorf("a manifest of another platform: %v, want ErrNotFound", err)
	}
	pull(t, s, PullOptions{Ref: single})
	must(t, s.Save(context.Background(), io.Discard, single))
}
