// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/moby/sys/userns"
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
	// What takes time in proportion to the layer comes before the lock and the
	// transaction.
	ready, err := s.makeReady(ctx, active, &request)
	if err != nil {
		return fmt.Errorf("commit %q: %w", key, err)
	}
	defer ready.end()
	unlock, err := s.keys.lock(ctx, key)
	if err != nil {
		return s.abandon(ctx, ready, err)
	}
	defer unlock()
	if err := s.publish(ctx, request, active.Number, ready.content); err != nil {
		return s.abandon(ctx, ready, err)
	}
	return nil
}

// ready is a snapshot whose content is as it will be.
type ready struct {
	content layerstore.Content
	patch   uint64 // number of a patch that was published for it, or 0
	end     func() // of keeping Sweep away from the patch
}

// makeReady brings the content of an active snapshot into its last form and makes
// it durable. A layer that our differ extracted was measured and synced then.
func (s *Snapshotter) makeReady(ctx context.Context, active metadata.Snapshot, request *metadata.Commit) (r ready, err error) {
	r.end = func() {}
	var sealed seal
	err = s.store.ReadSeal(active.Number, &sealed)
	if errdefs.IsNotFound(err) {
		if err := losesDeletions(active, request); err != nil {
			return r, err
		}
		r.content, err = s.store.Seal(ctx, active.Number)
		return r, err
	}
	if err != nil {
		return r, err
	}
	chain, err := s.chainAtCommit(active, request)
	if err != nil {
		return r, err
	}
	patch, end, err := s.answer(ctx, active, chain, &sealed)
	if err != nil {
		return r, err
	}
	r.content, r.end, r.patch = sealed.content(), end, patch.Number
	r.content.DiffID = "" // layers belong to their chains, as yet
	request.Patch, request.Blob, request.DiffID = patch, sealed.Blob.Digest, sealed.DiffID
	return r, nil
}

// losesDeletions refuses a layer that another differ extracted in a user namespace
// before its parent was known. containerd's applies it there through a mount, in
// which it found nothing to delete: files that the image deleted would be back.
func losesDeletions(active metadata.Snapshot, request *metadata.Commit) error {
	if active.ParentNumber != 0 || request.Parent == "" || !isExtraction(active.Info) || !userns.RunningInUserNS() {
		return nil
	}
	return fmt.Errorf("in a user namespace only Strata's differ can unpack a layer before its parent: name it in unpack_config, or take \"rebase\" from the proxy plugin's capabilities: %w", errdefs.ErrFailedPrecondition)
}

// chainAtCommit is the chain below a snapshot, with the parent it gets now.
func (s *Snapshotter) chainAtCommit(active metadata.Snapshot, request *metadata.Commit) (chain []metadata.Layer, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		parent := active.ParentNumber
		if parent == 0 && request.Parent != "" {
			p, err := tx.Get(request.Parent)
			if err != nil {
				return err
			}
			parent = p.Number
		}
		chain, err = tx.Chain(parent)
		return err
	})
	return chain, err
}

// abandon removes the patch of a Commit that failed.
func (s *Snapshotter) abandon(ctx context.Context, r ready, cause error) error {
	if r.patch != 0 {
		return errors.Join(cause, s.discardPatch(ctx, r.patch, func() {}))
	}
	return cause
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
	usage := snapshots.Usage{Size: content.Bytes, Inodes: content.Inodes}
	request.Layer = metadata.Layer{Number: n, Empty: content.Empty, OpaqueRoot: content.OpaqueRoot, Usage: usage}
	request.Usage = usage
	request.Usage.Add(request.Patch.Usage)
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
