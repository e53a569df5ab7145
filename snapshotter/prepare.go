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
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/metadata"
)

// Prepare makes an active snapshot on top of the committed snapshot parent, or
// on nothing, and returns its mounts.
//
// ErrAlreadyExists: the key is taken. ErrNotFound: no such parent.
// ErrInvalidArgument: the parent is not committed, or a key, label or id mapping
// makes no sense. ErrFailedPrecondition: the stack would be too high to be
// mounted, or ids can't be mapped here. ErrResourceExhausted: the disk is full.
//
// An extraction whose layer is here already gets ErrAlreadyExists, with a snapshot
// committed under the label containerd.io/snapshot.ref, or read-only mounts where its
// parent comes with Commit: see Config.Sharing.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	info, err := applyOpts(opts)
	if err != nil {
		return nil, err
	}
	info.Kind, info.Name, info.Parent = snapshots.KindActive, key, parent
	if mounts, err := s.reuse(ctx, info); mounts != nil || err != nil {
		return mounts, err
	}
	return s.create(ctx, info)
}

// View makes a read-only snapshot of the committed snapshot parent, or of
// nothing, and returns its mounts. Its errors are those of Prepare.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	info, err := applyOpts(opts)
	if err != nil {
		return nil, err
	}
	info.Kind, info.Name, info.Parent = snapshots.KindView, key, parent
	return s.create(ctx, info)
}

func (s *Snapshotter) create(ctx context.Context, info snapshots.Info) ([]mount.Mount, error) {
	if err := s.checkMapping(info); err != nil {
		return nil, err
	}
	base, err := s.baseOf(info)
	if err != nil {
		return nil, err
	}
	n, err := s.meta.Reserve(ctx)
	if err != nil {
		return nil, err
	}
	// Planned before anything is made: a stack that can't be mounted, or ids
	// that can't be mapped, are refused while there is nothing to clean up.
	mounts, err := s.mounts(metadata.Snapshot{Info: info, Number: n}, base.chain)
	if err != nil {
		return nil, err
	}
	defer s.store.Begin(n)()
	if info.Kind == snapshots.KindActive {
		if err := s.makeDirectories(ctx, info, n, base); err != nil {
			return nil, fmt.Errorf("prepare %q: %w", info.Name, err)
		}
	}
	if err := s.recordNew(ctx, info, n, base); err != nil {
		return nil, s.discard(ctx, n, err)
	}
	return mounts, nil
}

func applyOpts(opts []snapshots.Opt) (snapshots.Info, error) {
	var info snapshots.Info
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return info, err
		}
	}
	return info, nil
}

// base is what a new snapshot will stand on.
type base struct {
	parent uint64 // number of the parent, 0 for none
	chain  []metadata.Layer
}

// baseOf looks the parent up, and whether the key is free: both are checked
// again when the snapshot is recorded, but most mistakes end here.
func (s *Snapshotter) baseOf(info snapshots.Info) (b base, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		if info.Parent != "" {
			p, err := tx.Get(info.Parent)
			if err != nil {
				return fmt.Errorf("parent of snapshot %q: %w", info.Name, err)
			}
			if p.Kind != snapshots.KindCommitted {
				return fmt.Errorf("parent %q of snapshot %q is not committed: %w", info.Parent, info.Name, errdefs.ErrInvalidArgument)
			}
			b.parent = p.Number
		}
		if _, err := tx.Get(info.Name); err == nil {
			return fmt.Errorf("snapshot %q: %w", info.Name, errdefs.ErrAlreadyExists)
		}
		b.chain, err = tx.Chain(b.parent)
		return err
	})
	return b, err
}

func (s *Snapshotter) recordNew(ctx context.Context, info snapshots.Info, n uint64, base base) error {
	if err := failpoint.Hit(failpoint.PrepareRecord); err != nil {
		return err
	}
	defer failpoint.Pass(failpoint.PrepareRecorded)
	return s.meta.Update(ctx, func(tx *metadata.Tx) error {
		made, err := tx.Create(metadata.Create{Number: n, Kind: info.Kind, Key: info.Name, Parent: info.Parent, Labels: info.Labels})
		if err == nil && made.ParentNumber != base.parent {
			err = fmt.Errorf("parent %q of snapshot %q was replaced by another of that name, try again: %w", info.Parent, info.Name, errdefs.ErrUnavailable)
		}
		return err
	})
}

// inDoubt says that a transaction failed and may have been written all the same. What it
// names stays where it is: if it is not there in the end, Cleanup finds the rest.
func inDoubt(err error) bool { return errors.Is(err, metadata.ErrInDoubt) }

// discard removes the directory of a snapshot that was not recorded.
func (s *Snapshotter) discard(ctx context.Context, n uint64, cause error) error {
	if inDoubt(cause) {
		return cause
	}
	if err := s.store.TrashSnapshot(n); err != nil {
		log.G(ctx).WithError(err).WithField("number", n).Warn("a directory of a failed Prepare stays until the next Cleanup")
	}
	return cause
}

func (s *Snapshotter) makeDirectories(ctx context.Context, info snapshots.Info, n uint64, base base) error {
	defer step.Enter(ctx, step.Directories)()
	attrs := s.store.DefaultAttrs()
	if len(base.chain) > 0 {
		var err error
		if attrs, err = s.store.LayerAttrs(base.chain[0].Number); err != nil {
			return err
		}
	}
	ids, mapped, err := idMapOf(info)
	if err != nil {
		return err
	}
	if mapped {
		err = s.makeMapped(ctx, info, n, base, attrs, ids)
	} else {
		err = s.store.MakeSnapshot(n, s.upperAttrs(info, attrs))
	}
	if err != nil || isExtraction(info) {
		// Nobody goes on with an extraction after a power cut.
		return err
	}
	defer step.Enter(ctx, step.Sync)()
	return s.store.SyncSnapshots()
}
