// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

const (
	// downloads is how many layers are fetched at once.
	downloads = 4
	// minExtractions is how many layers are extracted at once on one processor: one
	// waits for the disk while the other decompresses.
	minExtractions = 2
)

// job brings one image into the store: the blobs from its source, each layer that is not
// here into a snapshot.
type job struct {
	s        *Store
	from     remotes.Fetcher
	matcher  platforms.MatchComparer
	asked    bool // for that platform, and no other will do
	progress Progress
	blobs    bool // fetch also the blobs of layers that are here

	image    Image // filled in as it becomes known
	steps    steps
	download *semaphore.Weighted
	extract  *semaphore.Weighted

	mu    sync.Mutex
	first error // what went wrong first: the unpacker reports what followed from it, too
}

// run unpacks what image.Target stands for. The context has a namespace and a lease.
func (j *job) run(ctx context.Context) error {
	j.download = semaphore.NewWeighted(downloads)
	j.extract = semaphore.NewWeighted(int64(max(minExtractions, runtime.GOMAXPROCS(0))))
	if err := j.describe(ctx); err != nil {
		return err
	}
	if err := j.checkPlatform(ctx); err != nil {
		return err
	}
	if err := j.s.repair(ctx, j.image); err != nil {
		return fmt.Errorf("image %s: %w", j.image.Name, err)
	}
	j.steps = newSteps(j.image, j.progress)
	j.steps.begin()
	if err := j.unpack(ctx); err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.first != nil {
			err = j.first
		}
		return fmt.Errorf("image %s: %w", j.image.Name, err)
	}
	if j.blobs {
		for _, desc := range j.image.Layers {
			if err := j.s.fetch(ctx, j.from, desc, nil); err != nil {
				return fmt.Errorf("image %s: %w", j.image.Name, err)
			}
		}
	}
	return nil
}

// describe fetches what the image consists of, down to the configuration.
func (j *job) describe(ctx context.Context) error {
	image := &j.image
	fetch := images.HandlerFunc(func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if images.IsLayerType(desc.MediaType) {
			return nil, images.ErrSkipDesc
		}
		return nil, j.s.fetch(ctx, j.from, desc, nil)
	})
	if err := images.Dispatch(ctx, images.Handlers(fetch, j.children()), nil, image.Target); err != nil {
		return fmt.Errorf("image %s: %w", image.Name, err)
	}
	var err error
	if image.Manifest, err = j.s.selectManifest(ctx, image.Target, j.matcher); err == nil {
		err = j.s.fill(ctx, image)
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", image.Name, err)
	}
	return nil
}

// checkPlatform refuses a single manifest for another platform than the one that was
// asked for. If none was, it is taken: there is nothing to choose from.
func (j *job) checkPlatform(ctx context.Context) error {
	p := j.image.Platform
	if j.matcher.Match(p) || p.OS == "" {
		return nil
	}
	if j.asked {
		return fmt.Errorf("image %s is for %s only: %w", j.image.Name, platforms.Format(p), errdefs.ErrNotFound)
	}
	log.G(ctx).WithField("image", j.image.Name).Warnf("the image is for %s, this machine is not", platforms.Format(p))
	return nil
}

// children lists what belongs to a descriptor, as far as it belongs to the platform, and
// makes it known to the garbage collector.
func (j *job) children() images.HandlerFunc {
	list := func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if !images.IsIndexType(desc.MediaType) {
			return images.Children(ctx, j.s.Content(), desc)
		}
		var index ocispec.Index
		if err := j.s.readJSON(ctx, desc, &index); err != nil {
			return nil, err
		}
		best, err := selectOf(index.Manifests, j.matcher)
		return []ocispec.Descriptor{best}, err
	}
	return images.SetChildrenLabels(j.s.Content(), list)
}

// unpack runs containerd's unpacker. It prepares every layer at once, and asks the
// applier for those that are not here; blobs are fetched then.
func (j *job) unpack(ctx context.Context) error {
	u, err := unpack.NewUnpacker(ctx, j.s.Content(),
		// What bounds the work is in Apply, where downloading and extracting differ.
		unpack.WithUnpackLimiter(semaphore.NewWeighted(math.MaxInt32)),
		unpack.WithUnpackPlatform(unpack.Platform{
			Platform:       platforms.All, // the manifest was chosen before
			SnapshotterKey: SnapshotterName,
			Snapshotter:    watched{j.s.Snapshotter(), j.s, &j.steps},
			// Also in a user namespace, where the snapshotter leaves it out because of
			// other differs.
			SnapshotterCapabilities: []string{snapshots.RebaseCap},
			Applier:                 j,
		}))
	if err != nil {
		return err
	}
	leaveLayers := images.HandlerFunc(func(_ context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if images.IsLayerType(desc.MediaType) {
			return nil, images.ErrSkipDesc
		}
		return nil, nil
	})
	err = images.Dispatch(ctx, u.Unpack(images.Handlers(leaveLayers, j.children())), nil, j.image.Target)
	_, unpacked := u.Wait()
	return errors.Join(err, unpacked)
}

// Apply implements diff.Applier for the unpacker: it fetches the layer's blob and
// extracts it.
func (j *job) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	applied, err := j.apply(ctx, desc, mounts, opts)
	if err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.first == nil && !errors.Is(err, context.Canceled) {
			j.first = err
		}
	}
	return applied, err
}

func (j *job) apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts []diff.ApplyOpt) (none ocispec.Descriptor, err error) {
	if err := j.download.Acquire(ctx, 1); err != nil {
		return none, err
	}
	err = j.s.fetch(ctx, j.from, desc, func(done int64) { j.steps.layer(StepDownload, desc, done) })
	j.download.Release(1)
	if err != nil {
		return none, err
	}
	if err := j.extract.Acquire(ctx, 1); err != nil {
		return none, err
	}
	defer j.extract.Release(1)
	opts = append(opts, diff.WithProgress(func(_ ocispec.Descriptor, done int64) { j.steps.layer(StepUnpack, desc, done) }))
	applied, err := j.s.differ.Apply(ctx, desc, mounts, opts...)
	if err != nil {
		return none, err
	}
	// The unpacker says the same, without a class.
	if want := j.steps.diffIDs[desc.Digest]; applied.Digest != want {
		return none, fmt.Errorf("layer %s holds %s, the image's config says %s: %w", desc.Digest, applied.Digest, want, errdefs.ErrDataLoss)
	}
	return applied, nil
}

var _ diff.Applier = (*job)(nil)
