// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"golang.org/x/sync/errgroup"
)

const (
	// fillers work on as many images at once.
	fillers = 32
	// fillBatch is how many snapshots containerd's store gets in one transaction.
	fillBatch = 1000
)

// fill makes the snapshots from (including) to (excluding).
func (s *opStore) fill(ctx context.Context, from, to int) error {
	if s.strata == "" {
		return s.fillOverlay(ctx, from, to)
	}
	// What is filled is flushed at the end.
	if err := s.reopen(ctx, "none", inBackground); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(fillers)
	for first := from; first < to; first += chainLength {
		group.Go(func() error {
			for i := first; i < min(first+chainLength, to); i++ {
				if err := s.make(groupCtx, filler(i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// make is Prepare and Commit of a layer with a file.
func (s *opStore) make(ctx context.Context, n opSnapshot) error {
	mounts, err := s.Prepare(ctx, n.key(), n.parent(), n.labels())
	if err != nil {
		return err
	}
	dir, err := upperDir(mounts)
	if err != nil {
		return err
	}
	if err := putFile(dir); err != nil {
		return err
	}
	return s.Commit(ctx, n.name(), n.key(), n.labels())
}

// fillOverlay writes into containerd's store as its snapshotter does, but many in a
// transaction: one after another it would take as long as they take there.
func (s *opStore) fillOverlay(ctx context.Context, from, to int) (err error) {
	if err := s.closeStore(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.snapshotRoot(), "snapshots"), 0o700); err != nil {
		return err
	}
	store, err := storage.NewMetaStore(filepath.Join(s.snapshotRoot(), "metadata.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	for ; from < to; from += fillBatch {
		err := store.WithTransaction(ctx, true, func(ctx context.Context) error {
			for i := from; i < min(from+fillBatch, to); i++ {
				if err := s.putOverlay(ctx, filler(i)); err != nil {
					return fmt.Errorf("snapshot %d: %w", i, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// putOverlay needs a context with a transaction.
func (s *opStore) putOverlay(ctx context.Context, n opSnapshot) error {
	made, err := storage.CreateSnapshot(ctx, snapshots.KindActive, n.key(), n.parent(), n.labels())
	if err != nil {
		return err
	}
	dir := filepath.Join(s.snapshotRoot(), "snapshots", made.ID)
	for _, name := range []string{"fs", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	if err := putFile(filepath.Join(dir, "fs")); err != nil {
		return err
	}
	usage := snapshots.Usage{Inodes: 2, Size: 8 << 10}
	_, err = storage.CommitActive(ctx, n.key(), n.name(), usage, n.labels())
	return err
}
