// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// checkMapping refuses an id mapping that nothing here can bring about.
func (s *Snapshotter) checkMapping(info snapshots.Info) error {
	_, mapped, err := idMapOf(info)
	if err != nil || !mapped || s.idmap {
		return err
	}
	if s.overrides() {
		return fmt.Errorf("snapshot %q asks for mapped ids, and with ownership %q no file has an id to be mapped: %w", info.Name, OwnershipOverrideStat, errdefs.ErrFailedPrecondition)
	}
	if info.Kind == snapshots.KindView {
		return fmt.Errorf("view %q asks for mapped ids, which takes idmapped mounts, and they can't be used here: %w", info.Name, errdefs.ErrFailedPrecondition)
	}
	if !s.cfg.SlowChown {
		return fmt.Errorf("snapshot %q asks for mapped ids, and idmapped mounts can't be used here: set slow_chown to change the owner of every file instead: %w", info.Name, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// makeMapped makes the directories of a snapshot with mapped ids.
//
// An idmapped mount of an overlay maps the lower directories only, so the upper
// one, and what is written to it, has the ids of the host. A bind mount, where
// there is nothing below, is mapped as a whole: its directory keeps the ids of
// the image, or they would be mapped twice.
func (s *Snapshotter) makeMapped(ctx context.Context, info snapshots.Info, n uint64, base base, attrs layerstore.RootAttrs, ids overlayutil.IDMap) error {
	bind := len(s.lowers(base.chain)) == 0
	if s.idmap && bind {
		return s.store.MakeSnapshot(n, attrs)
	}
	uid, gid, err := ids.Host(attrs.UID, attrs.GID)
	if err != nil {
		return err
	}
	hostAttrs := attrs
	hostAttrs.UID, hostAttrs.GID = uid, gid
	if s.idmap || bind {
		return s.store.MakeSnapshot(n, hostAttrs)
	}
	// The walk changes the owner of the upper directory, too, as it is the root
	// of what it walks over.
	if err := s.store.MakeSnapshot(n, attrs); err != nil {
		return err
	}
	if err := s.chownAll(ctx, info, n, base, ids); err != nil {
		return s.discard(ctx, n, err)
	}
	return nil
}

// chownAll mounts the snapshot and changes the owner of all there is, which
// copies it up. It takes time and space in proportion to the image.
func (s *Snapshotter) chownAll(ctx context.Context, info snapshots.Info, n uint64, base base, ids overlayutil.IDMap) error {
	defer step.Enter(ctx, step.Chown)()
	log.G(ctx).WithField("key", info.Name).Warn("idmapped mounts can't be used here: changing the owner of every file, which takes time and space")
	plan, err := s.plan(info, n, base.chain)
	if err != nil {
		return err
	}
	mounts, err := plan.Mounts()
	if err != nil {
		return err
	}
	err = mount.WithTempMount(ctx, mounts, func(root string) error {
		return chownTree(ctx, root, ids)
	})
	if err != nil && !errdefs.IsInvalidArgument(err) && !errors.Is(err, context.Canceled) {
		err = fmt.Errorf("change the owner of every file: %w", err)
	}
	return err
}
