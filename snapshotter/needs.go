// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"os"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/metadata"
)

// answer sees to what a sealed layer needs of the layers below, now that they are
// known. It returns the patch to go on top of the layer, with number 0 if there is
// none. The caller holds Begin(patch.Number) from then on by calling end.
func (s *Snapshotter) answer(ctx context.Context, active metadata.Snapshot, chain []metadata.Layer, sealed *seal) (patch metadata.Layer, end func(), err error) {
	end = func() {}
	if sealed.Needs.None() {
		return patch, end, nil
	}
	if sealed.Needs.Mounted == "" && len(s.lowers(chain)) > 0 {
		patch, end, err = s.makePatch(ctx, active, chain, sealed)
		if err != nil || sealed.Needs.Mounted == "" {
			return patch, end, err
		}
	}
	if sealed.Needs.Mounted == "" {
		return patch, end, nil // there is nothing below that could have an answer
	}
	if err := s.extractMounted(ctx, active, chain, sealed); err != nil {
		return patch, end, err
	}
	return patch, end, s.finishSeal(ctx, active.Number, sealed)
}

// makePatch asks the layers below. Where they can't tell, Needs.Mounted says why
// afterwards.
func (s *Snapshotter) makePatch(ctx context.Context, active metadata.Snapshot, chain []metadata.Layer, sealed *seal) (patch metadata.Layer, end func(), err error) {
	nothing := func() {}
	n, err := s.meta.Reserve(ctx)
	if err != nil {
		return patch, nothing, err
	}
	end = s.store.Begin(n)
	made, err := s.fillPatch(ctx, n, active, chain, sealed)
	if err == nil && made {
		content, err := s.store.PublishPatch(ctx, n)
		if err == nil {
			usage := snapshots.Usage{Size: content.Bytes, Inodes: content.Inodes}
			return metadata.Layer{Number: n, Usage: usage}, end, nil
		}
		return patch, nothing, errors.Join(err, s.discardPatch(ctx, n, end))
	}
	return patch, nothing, errors.Join(err, s.discardPatch(ctx, n, end))
}

func (s *Snapshotter) discardPatch(ctx context.Context, n uint64, end func()) error {
	defer end()
	if err := s.store.DiscardPatch(n); err != nil {
		log.G(ctx).WithError(err).WithField("layer", n).Warn("the directory of a patch stays until the next Cleanup")
	}
	return nil
}

func (s *Snapshotter) fillPatch(ctx context.Context, n uint64, active metadata.Snapshot, chain []metadata.Layer, sealed *seal) (made bool, err error) {
	below, err := s.openBelow(n, active.Number)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, below.Layer.Close(), below.Patch.Close()) }()
	view := metadata.Snapshot{Info: snapshots.Info{Kind: snapshots.KindView, Name: active.Name}}
	mounts, err := s.mounts(view, chain)
	if err != nil {
		return false, err
	}
	err = mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		dir, err := os.Open(root)
		if err != nil {
			return err
		}
		below.Merged = dir
		sealed.Needs.Mounted, made, err = archive.Answer(ctx, sealed.Needs, below, s.archiveOptions())
		return errors.Join(err, dir.Close())
	})
	return made, err
}

func (s *Snapshotter) openBelow(patch, layer uint64) (b archive.Below, err error) {
	if b.Patch, err = s.store.StagePatch(patch); err != nil {
		return b, err
	}
	if b.Layer, err = s.store.OpenUpper(layer); err != nil {
		return b, errors.Join(err, b.Patch.Close())
	}
	return b, nil
}
