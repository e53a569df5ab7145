// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	containerdarchive "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/epoch"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
)

// Compare writes a layer to containerd's content store that makes what upper shows
// out of what lower shows, and returns its descriptor. Without a lease of the
// caller the blob is leased for an hour.
//
// ErrNotImplemented: the media type is not a layer's that can be written here.
// ErrFailedPrecondition: mounts can't be mounted.
func (d *Differ) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (_ ocispec.Descriptor, err error) {
	defer func() { err = classify(ctx, err) }()
	cfg, err := compareConfig(ctx, opts)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	ctx, err = d.begin(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	ctx, undo, err := d.lease(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() {
		if err != nil {
			undo()
		}
	}()
	return d.compare(ctx, lower, upper, cfg, func(produce producer) (ocispec.Descriptor, error) {
		return d.upload(ctx, cfg, produce)
	})
}

// Tar writes the layer that Compare would write, uncompressed. begin gives the writer:
// where the first attempt ended in the middle it is called once more, and what was
// written before is worth nothing.
//
// ErrFailedPrecondition: mounts can't be mounted. Errors of the writer are as they were.
func (d *Differ) Tar(ctx context.Context, lower, upper []mount.Mount, begin func() (io.Writer, error)) (err error) {
	defer func() { err = classify(ctx, err) }()
	_, err = d.compare(ctx, lower, upper, diff.Config{}, func(produce producer) (none ocispec.Descriptor, err error) {
		w, err := begin()
		if err == nil {
			_, err = produce(w)
		}
		return none, err
	})
	return err
}

// sink takes a tar.
type sink func(producer) (ocispec.Descriptor, error)

func (d *Differ) compare(ctx context.Context, lower, upper []mount.Mount, cfg diff.Config, put sink) (ocispec.Descriptor, error) {
	desc, err := d.compareOwn(ctx, lower, upper, cfg, put)
	if !errors.Is(err, archive.ErrUnsure) {
		return desc, err
	}
	log.G(ctx).WithError(err).Debug("both mounts are walked to compare them")
	return d.compareMounted(ctx, lower, upper, cfg, put)
}

// compareConfig reads the options as containerd's walking differ does.
func compareConfig(ctx context.Context, opts []diff.Opt) (cfg diff.Config, err error) {
	for _, opt := range opts {
		if err := opt(&cfg); err != nil {
			return cfg, fmt.Errorf("options of Compare: %w", err)
		}
	}
	if cfg.SourceDateEpoch == nil {
		cfg.SourceDateEpoch = epoch.FromContext(ctx)
	}
	if cfg.Compressor != nil && cfg.MediaType == "" {
		return cfg, fmt.Errorf("a compressor needs the media type of what it makes: %w", errdefs.ErrInvalidArgument)
	}
	if cfg.MediaType == "" {
		cfg.MediaType = ocispec.MediaTypeImageLayerGzip
	}
	if cfg.Compressor == nil && compressors[cfg.MediaType] == nil {
		return cfg, fmt.Errorf("layers of media type %q can't be written here: %w", cfg.MediaType, errdefs.ErrNotImplemented)
	}
	return cfg, nil
}

// compareOwn reads only the upper directory. archive.ErrUnsure: that may not be
// enough.
func (d *Differ) compareOwn(ctx context.Context, lower, upper []mount.Mount, cfg diff.Config, put sink) (desc ocispec.Descriptor, err error) {
	c, ok := d.changesOf(lower, upper)
	if !ok {
		return desc, fmt.Errorf("the upper mounts are not a snapshot of this store on the lower ones: %w", archive.ErrUnsure)
	}
	if c.lowers != nil {
		return compareOverride(ctx, c, cfg, put)
	}
	err = mount.WithReadonlyTempMount(ctx, lower, func(root string) (err error) {
		parent, err := openDir(root)
		if err != nil {
			return err
		}
		// Before the unmount, which an open directory makes fail.
		defer func() { err = errors.Join(err, parent.Close()) }()
		desc, err = putChanges(ctx, c, archive.Upper{Parent: parent}, cfg, put)
		return err
	})
	return desc, err
}

// compareOverride is compareOwn without a mount of the layers below.
func compareOverride(ctx context.Context, c changes, cfg diff.Config, put sink) (_ ocispec.Descriptor, err error) {
	upper := archive.Upper{OverrideStat: true}
	defer func() {
		for _, dir := range upper.Lowers {
			err = errors.Join(err, dir.Close())
		}
	}()
	for _, path := range withoutEmpty(c.lowers) {
		dir, err := openDir(path)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		upper.Lowers = append(upper.Lowers, dir)
	}
	return putChanges(ctx, c, upper, cfg, put)
}

func putChanges(ctx context.Context, c changes, upper archive.Upper, cfg diff.Config, put sink) (_ ocispec.Descriptor, err error) {
	dir, err := openDir(c.dir)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	upper.Dir, upper.Xattrs = dir, c.xattrs
	opts := archive.DiffOptions{
		SourceDateEpoch: cfg.SourceDateEpoch,
		Warn:            func(text string) { log.G(ctx).WithField("directory", c.dir).Warn(text) },
	}
	return put(func(w io.Writer) (digest.Digest, error) {
		result, err := archive.Diff(ctx, w, upper, opts)
		return result.DiffID, err
	})
}

// compareMounted walks both mounts with containerd's own code, which is slow and
// right for all mounts.
func (d *Differ) compareMounted(ctx context.Context, lower, upper []mount.Mount, cfg diff.Config, put sink) (desc ocispec.Descriptor, err error) {
	if len(upper) == 0 {
		return desc, fmt.Errorf("there are no mounts to compare: %w", errdefs.ErrInvalidArgument)
	}
	var opts []containerdarchive.WriteDiffOpt
	if cfg.SourceDateEpoch != nil {
		opts = append(opts, containerdarchive.WithSourceDateEpoch(cfg.SourceDateEpoch))
	}
	err = mount.WithReadonlyTempMount(ctx, lower, func(below string) error {
		return mount.WithReadonlyTempMount(ctx, readOnlyFuse(upper), func(above string) (err error) {
			desc, err = put(func(w io.Writer) (digest.Digest, error) {
				digester := digest.Canonical.Digester()
				err := containerdarchive.WriteDiff(ctx, io.MultiWriter(w, digester.Hash()), below, above, opts...)
				return digester.Digest(), err
			})
			return err
		})
	})
	return desc, err
}
