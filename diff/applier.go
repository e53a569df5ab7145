// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/log"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/step"
)

// Apply extracts the layer of desc into what mounts show and returns the
// descriptor of the uncompressed layer, whose digest is the diffID.
//
// ErrNotImplemented: desc is no layer tar, or the mounts need containerd's mount
// manager. ErrInvalidArgument: the mounts are read-only, or the blob is not a
// layer as it should be. ErrNotFound: the namespace has no such blob.
// ErrResourceExhausted: the layer is over a limit, or the disk is full.
func (d *Differ) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (_ ocispec.Descriptor, err error) {
	defer func() { err = classify(ctx, err) }()
	start := time.Now()
	p, err := packingOf(desc.MediaType)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var cfg diff.ApplyConfig
	for _, opt := range opts {
		if err := opt(ctx, desc, &cfg); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("options of Apply: %w", err)
		}
	}
	if err := checkTarget(mounts); err != nil {
		return ocispec.Descriptor{}, err
	}
	ctx, err = d.begin(ctx)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	namespace, _ := namespaces.Namespace(ctx) // begin found it
	ended := d.foresight.asked(namespace, desc.Digest, mounts)
	result, err := d.apply(ctx, desc, p, mounts, cfg)
	ended(err)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("apply layer %s: %w", desc.Digest, err)
	}
	log.G(ctx).WithField("digest", desc.Digest).WithField("diffID", result.DiffID).WithField("d", time.Since(start)).Debug("layer applied")
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: result.DiffID, Size: result.Size}, nil
}

// apply opens the layer and hands it to its target.
func (d *Differ) apply(ctx context.Context, desc ocispec.Descriptor, p packing, mounts []mount.Mount, cfg diff.ApplyConfig) (_ archive.Result, err error) {
	found := step.Enter(ctx, step.ReadBlob)
	l, err := d.openLayer(ctx, desc, p, cfg.Progress)
	found()
	if err != nil {
		return archive.Result{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	defer step.Enter(ctx, step.Extract)()
	result, err := d.extract(ctx, l, mounts, cfg.SyncFs)
	if err == nil && cfg.Progress != nil {
		cfg.Progress(desc.Size)
	}
	return result, err
}

// ApplyOnto extracts the layer of desc onto dir, which shows the layers below it.
// It is for whoever learns only at Commit that a layer can't be extracted alone.
// Errors are those of Apply.
func (d *Differ) ApplyOnto(ctx context.Context, desc ocispec.Descriptor, dir *os.File, opts archive.Options) (_ archive.Result, err error) {
	defer func() { err = classify(ctx, err) }()
	p, err := packingOf(desc.MediaType)
	if err != nil {
		return archive.Result{}, err
	}
	ctx, err = d.begin(ctx)
	if err != nil {
		return archive.Result{}, err
	}
	l, err := d.openLayer(ctx, desc, p, nil)
	if err != nil {
		return archive.Result{}, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return run(ctx, archive.ApplyOnto, l, dir, opts)
}

// engine is archive.Apply or archive.ApplyOnto.
type engine func(context.Context, archive.Source, *os.File, archive.Options) (archive.Result, error)

// run extracts l, and makes sure that it was the whole blob.
func run(ctx context.Context, extract engine, l *layer, dir *os.File, opts archive.Options) (archive.Result, error) {
	opts.Ratio = l.input.Count
	if opts.Warn == nil {
		opts.Warn = func(text string) { log.G(ctx).WithField("digest", l.desc.Digest).Warn(text) }
	}
	result, err := extract(ctx, l.Reader, dir, opts)
	if err := cmp.Or(l.allowed(), err); err != nil {
		return archive.Result{}, err
	}
	return result, l.checkConsumed()
}
