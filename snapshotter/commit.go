// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// Commit makes the active snapshot key the committed snapshot name, which
// children can stand on and nobody writes to. A snapshot that was prepared
// without a parent can get one now (snapshots.WithParent). When Commit returns,
// and unless Durability is none, the layer survives a power cut.
//
// ErrNotFound: no such key, or parent. ErrAlreadyExists: the name is taken.
// ErrFailedPrecondition: the key is not active, or the parent not committed.
// ErrInvalidArgument: it has another parent, or a label makes no sense.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	info, err := applyOpts(opts)
	if err != nil {
		return err
	}
	request := metadata.Commit{Key: key, Name: name, Parent: info.Parent, Labels: info.Labels}
	active, err := s.checkCommit(request)
	if err != nil {
		return err
	}
	// The walk and the sync come before the lock and the transaction: they take
	// time in proportion to the layer.
	content, err := s.store.Seal(ctx, active.Number)
	if err != nil {
		return fmt.Errorf("commit %q: %w", key, err)
	}
	unlock, err := s.keys.lock(ctx, key)
	if err != nil {
		return err
	}
	defer unlock()
	return s.publish(ctx, request, active.Number, content)
}

func (s *Snapshotter) checkCommit(request metadata.Commit) (active metadata.Snapshot, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		active, err = tx.CheckCommit(request)
		return err
	})
	return active, err
}

// publish moves the directory to the layers and records it there. The caller
// holds the lock of the key.
func (s *Snapshotter) publish(ctx context.Context, request metadata.Commit, n uint64, content layerstore.Content) error {
	active, err := s.checkCommit(request)
	if err != nil {
		return err
	}
	if active.Number != n {
		return fmt.Errorf("commit %q: it was replaced by another of that key meanwhile: %w", request.Key, errdefs.ErrUnavailable)
	}
	defer s.store.Begin(n)()
	if err := s.store.Publish(n, content); err != nil {
		return fmt.Errorf("commit %q: %w", request.Key, err)
	}
	request.Usage = snapshots.Usage{Size: content.Bytes, Inodes: content.Inodes}
	request.Layer = metadata.Layer{Number: n, Empty: content.Empty, Usage: request.Usage}
	// From here on the call is finished, one way or the other, whatever its
	// context does.
	err = s.meta.Update(context.WithoutCancel(ctx), func(tx *metadata.Tx) error {
		_, err := tx.Commit(request)
		return err
	})
	if err != nil {
		return errors.Join(err, s.store.Unpublish(n))
	}
	if err := s.store.DropWork(n); err != nil {
		log.G(ctx).WithError(err).WithField("layer", n).Warn("the workdir of a committed snapshot stays until the next start")
	}
	return nil
}
