// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"regexp"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/metadata"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// Mounts returns what to mount, in order, to see the active snapshot or view
// called key.
//
// ErrNotFound: there is none. ErrFailedPrecondition: it is committed, or its
// stack can't be mounted. ErrUnavailable: a directory of it is gone.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	unlock, err := s.keys.lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var snapshot metadata.Snapshot
	var chain []metadata.Layer
	err = s.meta.View(func(tx *metadata.Tx) error {
		if snapshot, err = tx.Get(key); err != nil {
			return err
		}
		if snapshot.Kind == snapshots.KindCommitted {
			return fmt.Errorf("snapshot %q is committed and has no mounts, prepare or view a child of it: %w", key, errdefs.ErrFailedPrecondition)
		}
		chain, err = tx.Chain(snapshot.ParentNumber)
		return err
	})
	if err != nil {
		return nil, err
	}
	if snapshot.Layer != 0 {
		return s.stagedMounts(key, metadata.Layer{Number: snapshot.Layer})
	}
	defer step.Enter(ctx, step.Look)()
	if err := s.checkDirectories(snapshot, chain); err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", key, err)
	}
	return s.mounts(snapshot, chain)
}

func (s *Snapshotter) checkDirectories(snapshot metadata.Snapshot, chain []metadata.Layer) error {
	if snapshot.Kind == snapshots.KindActive {
		if err := s.store.CheckSnapshot(snapshot.Number); err != nil {
			return err
		}
	}
	return s.checkLayers(chain)
}

// checkLayers fails with ErrUnavailable if the directory of a layer is gone.
func (s *Snapshotter) checkLayers(chain []metadata.Layer) error {
	for _, l := range chain {
		if err := s.store.CheckLayer(l.Number); err != nil {
			return err
		}
	}
	return nil
}

// mounts is the plan of a snapshot over the layers of its parents, top first.
//
// ErrUnavailable: a layer is in an additional store that is gone. What is in its place
// is an empty directory, which must not be mounted for it.
func (s *Snapshotter) mounts(snapshot metadata.Snapshot, chain []metadata.Layer) ([]mount.Mount, error) {
	if err := s.store.CheckExternals(numbersOf(chain)); err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", snapshot.Name, err)
	}
	plan, err := s.plan(snapshot.Info, snapshot.Number, chain)
	if err != nil {
		return nil, err
	}
	m, err := plan.Mounts()
	if err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", snapshot.Name, err)
	}
	return s.consumers(m), nil
}

func numbersOf(chain []metadata.Layer) []uint64 {
	numbers := make([]uint64, len(chain))
	for i, l := range chain {
		numbers[i] = l.Number
	}
	return numbers
}

func (s *Snapshotter) plan(info snapshots.Info, n uint64, chain []metadata.Layer) (overlayutil.Plan, error) {
	plan := overlayutil.Plan{
		Lowers:  s.lowers(chain),
		Empty:   s.store.EmptyPath(),
		Options: s.options,
		Type:    s.mountType,
	}
	if info.Kind == snapshots.KindActive {
		plan.Upper, plan.Work = s.store.UpperPath(n), s.store.WorkPath(n)
		plan.ForceOverlay = isExtraction(info) || s.overrides()
	}
	ids, mapped, err := idMapOf(info)
	if err != nil || !mapped || !s.idmap {
		return plan, err
	}
	plan.UIDMap, plan.GIDMap = ids.UIDString(), ids.GIDString()
	return plan, nil
}

func (s *Snapshotter) lowers(chain []metadata.Layer) []string {
	layers := make([]overlayutil.Layer, len(chain))
	for i, l := range chain {
		layers[i] = overlayutil.Layer{Path: s.store.LayerPath(l.Number), Empty: l.Empty, OpaqueRoot: l.OpaqueRoot}
	}
	return overlayutil.Lowers(layers)
}

// extractionKey matches the keys that containerd's unpacker makes
// (snapshots.UnpackKeyFormat), with the namespace and counter that its metadata
// layer puts before them.
var extractionKey = regexp.MustCompile(`^([^/]+/[0-9]+/)?` + snapshots.UnpackKeyPrefix + `-`)

// isExtraction says whether a layer is going to be unpacked into a snapshot.
// It is mounted as an overlay even without a parent: through a bind mount
// containerd's walking differ would not convert whiteouts.
func isExtraction(info snapshots.Info) bool {
	return info.Labels[snapshots.LabelSnapshotRef] != "" || extractionKey.MatchString(info.Name)
}

// idMapOf reads the id mapping that a snapshot's labels ask for. On extractions
// such labels can come from annotations of the image: whoever made it has no say
// in this, and a layer is unpacked with the ids it has.
func idMapOf(info snapshots.Info) (ids overlayutil.IDMap, mapped bool, err error) {
	if isExtraction(info) {
		return ids, false, nil
	}
	uids, hasUIDs := info.Labels[snapshots.LabelSnapshotUIDMapping]
	gids, hasGIDs := info.Labels[snapshots.LabelSnapshotGIDMapping]
	if !hasUIDs && !hasGIDs {
		return ids, false, nil
	}
	ids, err = overlayutil.ParseIDMap(uids, gids)
	if err != nil {
		return ids, false, fmt.Errorf("snapshot %q: labels %s and %s: %w", info.Name, snapshots.LabelSnapshotUIDMapping, snapshots.LabelSnapshotGIDMapping, err)
	}
	return ids, true, nil
}
