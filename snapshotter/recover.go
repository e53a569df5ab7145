// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"
	"github.com/strata-snapshotter/strata/metadata"
)

// recover brings directories and metadata together again after a crash.
func (s *Snapshotter) recover(ctx context.Context) error {
	var active []uint64
	keys := map[uint64]string{}
	err := s.meta.Walk(ctx, func(_ context.Context, sn metadata.Snapshot) error {
		if sn.Kind == snapshots.KindActive && sn.Layer == 0 { // a staged one needs no directory
			active = append(active, sn.Number)
			keys[sn.Number] = sn.Name
		}
		return nil
	})
	if err != nil {
		return err
	}
	missing, err := s.store.Recover(ctx, named{s.meta}, active)
	if err != nil {
		return err
	}
	for _, n := range missing {
		log.G(ctx).WithField("key", keys[n]).WithField("directory", s.store.UpperPath(n)).Error("the directory of an active snapshot is missing: it can only be removed")
	}
	if err := s.store.Sweep(ctx, named{s.meta}); err != nil {
		return err
	}
	return s.store.MountExternals(ctx)
}
