// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"maps"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/strata-snapshotter/strata/metadata"
)

// upperdirLabel says where a snapshot's changes are, for those who read them
// there. The name is containerd's.
const upperdirLabel = "containerd.io/snapshot/overlay.upperdir"

// Stat returns what is known of the snapshot called key. ErrNotFound if there
// is none.
func (s *Snapshotter) Stat(_ context.Context, key string) (snapshots.Info, error) {
	snapshot, err := s.get(key)
	if err != nil {
		return snapshots.Info{}, err
	}
	return s.info(snapshot), nil
}

func (s *Snapshotter) get(key string) (snapshot metadata.Snapshot, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		snapshot, err = tx.Get(key)
		return err
	})
	return snapshot, err
}

// info adds the upperdir label if it is asked for. Views have no upperdir.
func (s *Snapshotter) info(snapshot metadata.Snapshot) snapshots.Info {
	info := snapshot.Info
	if !s.cfg.UpperdirLabel || info.Kind == snapshots.KindView {
		return info
	}
	labels := maps.Clone(info.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[upperdirLabel] = s.store.UpperPath(snapshot.Number)
	if info.Kind == snapshots.KindCommitted {
		labels[upperdirLabel] = s.store.LayerPath(snapshot.Layer)
	}
	info.Labels = labels
	return info
}

// Update changes the labels of a snapshot: all of them, or those named by
// "labels.NAME" field paths.
//
// ErrNotFound: there is none. ErrInvalidArgument: another field, or a label that
// is too long.
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (snapshots.Info, error) {
	// The label is made, never stored: it would be wrong after a Commit.
	info.Labels = maps.Clone(info.Labels)
	delete(info.Labels, upperdirLabel)
	var updated metadata.Snapshot
	err := s.meta.Update(ctx, func(tx *metadata.Tx) (err error) {
		updated, err = tx.UpdateInfo(info, fieldpaths...)
		return err
	})
	if err != nil {
		return snapshots.Info{}, err
	}
	return s.info(updated), nil
}

// Usage returns what a snapshot takes on disk, in bytes and inodes, hard links counted
// once. A layer that several snapshots share is charged to the oldest of them alone, so
// that the sum over all snapshots is what the disk holds; when that one goes it is
// charged to the next. What a layer takes was counted when it was made; an active
// snapshot is walked over, which takes time in proportion to what was changed in it; a
// view takes nothing.
//
// ErrNotFound: there is none. ErrUnavailable: its directory is gone.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	snapshot, usage, err := s.charged(key)
	if err != nil || snapshot.Kind != snapshots.KindActive || snapshot.Layer != 0 {
		return usage, err
	}
	content, err := s.store.Measure(ctx, snapshot.Number)
	if err != nil {
		// It may have been committed or removed while it was walked over.
		if now, usage, gone := s.charged(key); gone != nil || now.Kind != snapshots.KindActive || now.Layer != 0 {
			return usage, gone
		}
		return snapshots.Usage{}, fmt.Errorf("usage of snapshot %q: %w", key, err)
	}
	return snapshots.Usage{Size: content.Bytes, Inodes: content.Inodes}, nil
}

func (s *Snapshotter) charged(key string) (snapshot metadata.Snapshot, usage snapshots.Usage, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		if snapshot, err = tx.Get(key); err != nil {
			return err
		}
		usage, err = tx.Charged(snapshot)
		return err
	})
	return snapshot, usage, err
}

// Walk calls fn for every snapshot that matches one of the filters, in
// containerd's syntax, or for all. fn may call the snapshotter.
//
// ErrInvalidArgument: a filter can't be parsed.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.meta.Walk(ctx, func(ctx context.Context, snapshot metadata.Snapshot) error {
		return fn(ctx, s.info(snapshot))
	}, filters...)
}
