// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/metadata"
)

// Remove forgets the snapshot called key and moves its directories to the
// trash. They are deleted in the background, or before Remove returns if
// SyncRemove is set.
//
// ErrNotFound: there is none. ErrFailedPrecondition: it has children.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	unlock, err := s.keys.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	var removed metadata.Removed
	if err := failpoint.Hit(failpoint.RemoveRecord); err != nil {
		return err
	}
	err = s.meta.Update(ctx, func(tx *metadata.Tx) (err error) {
		removed, err = tx.Remove(key)
		return err
	})
	if err != nil {
		return err
	}
	failpoint.Pass(failpoint.RemoveRecorded)
	s.flights.forget(removed.Number)
	if removed.Kind == snapshots.KindActive {
		s.ahead.gone(namespaceOf(ctx, key), removed.Labels[snapshots.LabelSnapshotRef])
	}
	// The snapshot is gone. What fails from here on is space that Cleanup gives
	// back, and no reason to tell the caller that it is still there.
	if err := s.trash(ctx, removed); err != nil {
		log.G(ctx).WithError(err).WithField("key", key).Warn("directories of a removed snapshot stay until the next Cleanup")
		return nil
	}
	if s.cfg.SyncRemove {
		defer step.Enter(ctx, step.Delete)()
		if err := s.store.EmptyTrashNow(ctx); err != nil {
			log.G(ctx).WithError(err).WithField("key", key).Warn("directories of removed snapshots are deleted later")
		}
	}
	return nil
}

func (s *Snapshotter) trash(ctx context.Context, removed metadata.Removed) error {
	defer step.Enter(ctx, step.Trash)()
	var errs []error
	if removed.Kind == snapshots.KindActive {
		errs = append(errs, s.store.TrashSnapshot(removed.Number))
	}
	for _, n := range removed.Layers {
		errs = append(errs, s.store.TrashLayer(n))
	}
	return errors.Join(errs...)
}

// Cleanup deletes what was removed, and what crashes and failures left behind.
// It is the one call that waits for deletions, until ctx ends; the background
// goes on with the rest.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	defer step.Enter(ctx, step.Delete)()
	if err := s.store.Sweep(ctx, named{s.meta}); err != nil {
		return err
	}
	return s.store.EmptyTrash(ctx)
}

// named answers the store's questions from the metadata.
type named struct{ meta *metadata.Store }

func (m named) Snapshots(numbers []uint64) (map[uint64]bool, error) {
	return m.ask(numbers, func(tx *metadata.Tx, n uint64) (bool, error) {
		if !tx.HasSnapshot(n) {
			return false, nil
		}
		snapshot, err := tx.ByNumber(n)
		return err != nil || snapshot.Kind == snapshots.KindActive, nil // in doubt, keep
	})
}

func (m named) Layers(numbers []uint64) (map[uint64]bool, error) {
	return m.ask(numbers, func(tx *metadata.Tx, n uint64) (bool, error) { return tx.HasLayer(n), nil })
}

func (m named) ask(numbers []uint64, is func(*metadata.Tx, uint64) (bool, error)) (map[uint64]bool, error) {
	answers := make(map[uint64]bool, len(numbers))
	err := m.meta.View(func(tx *metadata.Tx) error {
		for _, n := range numbers {
			yes, err := is(tx, n)
			if err != nil {
				return err
			}
			answers[n] = yes
		}
		return nil
	})
	return answers, err
}
