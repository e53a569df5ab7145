// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/moby/sys/userns"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// Commit makes the active snapshot key the committed snapshot name, which
// children can stand on and nobody writes to. A snapshot that was prepared
// without a parent can get one now (snapshots.WithParent). When Commit returns,
// and unless Durability is none, the layer survives a power cut.
//
// An extracted layer that is in the store already is dropped for that one.
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
	for {
		err := s.commit(ctx, &request)
		if !errors.Is(err, errStagedMeanwhile) && !errors.Is(err, metadata.ErrPatchGone) {
			return err
		}
	}
}

// errStagedMeanwhile is the reason to begin a Commit again: its layer was published
// for somebody else who waited for it.
var errStagedMeanwhile = fmt.Errorf("the snapshot was staged meanwhile: %w", errdefs.ErrUnavailable)

func (s *Snapshotter) commit(ctx context.Context, request *metadata.Commit) error {
	active, err := s.checkCommit(*request)
	if err != nil {
		return err
	}
	// What takes time in proportion to the layer comes before the lock and the
	// transaction.
	ready, err := s.makeReady(ctx, active, request)
	defer func() { ready.patch.end() }()
	if err != nil {
		err = s.dropPatch(ctx, ready.patch, err)
		return fmt.Errorf("commit %q: %w", request.Key, s.unlessStaged(ctx, *request, active, err))
	}
	unlock, err := s.keys.lock(ctx, request.Key)
	if err != nil {
		return s.dropPatch(ctx, ready.patch, err)
	}
	defer unlock()
	if err := failpoint.Hit(failpoint.CommitReady); err != nil {
		return s.dropPatch(ctx, ready.patch, err)
	}
	if err := s.finish(ctx, *request, active, ready); err != nil {
		return s.dropPatch(ctx, ready.patch, err)
	}
	s.flights.forget(active.Number)
	return nil
}

// unlessStaged is why a snapshot could not be made ready. Its directory may have been
// on its way to become a layer: who moves it has the lock until that is recorded.
func (s *Snapshotter) unlessStaged(ctx context.Context, request metadata.Commit, was metadata.Snapshot, cause error) error {
	unlock, err := s.keys.lock(ctx, request.Key)
	if err != nil {
		return cause
	}
	defer unlock()
	if now, gone := s.checkCommit(request); gone == nil && now.Number == was.Number && now.Layer != was.Layer {
		return errStagedMeanwhile
	}
	return cause
}

// ready is a snapshot whose content is as it will be.
type ready struct {
	content layerstore.Content
	staged  bool // the content is a layer already
	patch   patch
}

// makeReady brings the content of an active snapshot into its last form and makes
// it durable. A layer that our differ extracted was measured and synced then.
func (s *Snapshotter) makeReady(ctx context.Context, active metadata.Snapshot, request *metadata.Commit) (r ready, err error) {
	r.patch.end = func() {}
	chain, err := s.chainAtCommit(active, request)
	if err != nil {
		return r, err
	}
	if active.Layer != 0 {
		return s.readyStaged(ctx, active, chain, request)
	}
	var sealed seal
	err = s.store.ReadSeal(active.Number, &sealed)
	if errdefs.IsNotFound(err) {
		if err := errors.Join(losesDeletions(active, request), s.adoptUpper(ctx, active)); err != nil {
			return r, err
		}
		r.content, err = s.store.Seal(ctx, active.Number)
		return r, err
	}
	if err != nil {
		return r, err
	}
	if r.patch, err = s.answer(ctx, active, chain, &sealed); err != nil {
		return r, err
	}
	request.Blob, request.DiffID = sealed.Blob.Digest, sealed.DiffID
	r.content, err = s.contentOf(ctx, active, &sealed)
	return r, err
}

// contentOf is what a sealed snapshot holds. Only what an extraction made goes by the
// diffID: into other snapshots their client may have written, too.
func (s *Snapshotter) contentOf(ctx context.Context, active metadata.Snapshot, sealed *seal) (layerstore.Content, error) {
	if !isExtraction(active.Info) {
		if err := s.adoptUpper(ctx, active); err != nil {
			return layerstore.Content{}, err
		}
		content, err := s.store.Seal(ctx, active.Number)
		content.OpaqueRoot = sealed.OpaqueRoot
		return content, err
	}
	content, err := sealed.content()
	if err != nil || content.DiffID == "" || s.cfg.Sharing == SharingOff {
		content.DiffID = ""
		return content, err
	}
	if err := s.checkOwnRoot(active); errdefs.IsNotFound(err) {
		content.DiffID = "" // the root directory has what is below
	} else if err != nil {
		return content, err
	}
	return content, nil
}

// readyStaged answers what the layer of a staged snapshot needs of its chain.
func (s *Snapshotter) readyStaged(ctx context.Context, active metadata.Snapshot, chain []metadata.Layer, request *metadata.Commit) (r ready, err error) {
	r.staged, r.patch.end = true, func() {}
	layer, err := s.layer(active.Layer)
	if err != nil {
		return r, err
	}
	r.patch, err = s.patchShared(ctx, active.Name, layer, chain)
	if !errdefs.IsNotFound(err) {
		return r, err
	}
	// On this chain the layer is another directory.
	sealed, sealErr := s.sealOfStaged(ctx, active, layer)
	if sealErr != nil {
		return r, errors.Join(err, sealErr)
	}
	sealed.Needs.Mounted = err.Error()
	if err := s.extractPrivately(ctx, active, chain, &sealed); err != nil {
		return r, err
	}
	request.Blob, request.DiffID = sealed.Blob.Digest, sealed.DiffID
	r.staged = false
	r.content, err = sealed.content()
	return r, err
}

func (s *Snapshotter) layer(n uint64) (l metadata.Layer, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		l, err = tx.GetLayer(n)
		return err
	})
	return l, err
}

// answer sees to what a sealed layer needs of the layers below, now that they are
// known.
func (s *Snapshotter) answer(ctx context.Context, active metadata.Snapshot, chain []metadata.Layer, sealed *seal) (patch, error) {
	p, reason, err := s.makePatch(ctx, question{
		key: active.Name, diffID: s.sharedAs(active, sealed), needs: sealed.Needs,
		open: func() (*os.File, error) { return s.store.OpenUpper(active.Number) },
	}, chain)
	if err != nil || reason == "" {
		return p, err
	}
	sealed.Needs.Mounted = reason
	return p, s.extractPrivately(ctx, active, chain, sealed)
}

// sharedAs is the diffID that the layer of a seal can be shared under, if it can.
func (s *Snapshotter) sharedAs(active metadata.Snapshot, sealed *seal) digest.Digest {
	if s.cfg.Sharing == SharingOff || sealed.Private || !isExtraction(active.Info) {
		return ""
	}
	return sealed.DiffID
}

// extractPrivately extracts the layer of a seal onto the layers below it. What comes of
// it is of no use on others.
func (s *Snapshotter) extractPrivately(ctx context.Context, active metadata.Snapshot, chain []metadata.Layer, sealed *seal) error {
	if err := s.extractMounted(ctx, active, chain, sealed); err != nil {
		return err
	}
	return s.finishSeal(ctx, active.Number, sealed)
}

func (s *seal) content() (c layerstore.Content, err error) {
	c = layerstore.Content{Bytes: s.Bytes, Inodes: s.Inodes, Empty: s.Empty, OpaqueRoot: s.OpaqueRoot, Size: s.Size, Indexed: s.Indexed}
	if !s.Private {
		c.DiffID = s.DiffID
	}
	if !s.Needs.None() {
		c.Needs, err = json.Marshal(s.Needs)
	}
	return c, err
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

func (s *Snapshotter) checkCommit(request metadata.Commit) (active metadata.Snapshot, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		active, err = tx.CheckCommit(request)
		return err
	})
	return active, err
}

// finish records what was made ready. The caller holds the lock of the key.
func (s *Snapshotter) finish(ctx context.Context, request metadata.Commit, was metadata.Snapshot, r ready) error {
	active, err := s.checkCommit(request)
	if err != nil {
		return err
	}
	if active.Number != was.Number {
		return fmt.Errorf("commit %q: it was replaced by another of that key meanwhile: %w", request.Key, errdefs.ErrUnavailable)
	}
	if active.Layer != was.Layer {
		return errStagedMeanwhile
	}
	request.Patch, request.SharedPatch = r.patch.layer, r.patch.shared
	if r.staged {
		return s.finishStaged(ctx, request, active)
	}
	adopted, err := s.finishAdopted(ctx, request, active, &r.content)
	if adopted || err != nil {
		return err
	}
	return s.publish(ctx, request, active, r.content)
}

// finishStaged commits a snapshot on the layer that it is staged on.
func (s *Snapshotter) finishStaged(ctx context.Context, request metadata.Commit, active metadata.Snapshot) error {
	defer s.store.Begin(active.Number)() // Sweep need not see the directory between the two steps
	layer, err := s.layer(active.Layer)
	if err != nil {
		return err
	}
	request.Layer = layer
	if err := s.record(ctx, nil, &request); err != nil {
		return err
	}
	s.trashUpper(ctx, active.Number)
	return nil
}

// finishAdopted commits an extracted snapshot on the layer with the same diffID that is
// there already, if there is one. If that one's directory is gone, the snapshot keeps its
// own for itself.
func (s *Snapshotter) finishAdopted(ctx context.Context, request metadata.Commit, active metadata.Snapshot, content *layerstore.Content) (bool, error) {
	if content.DiffID == "" {
		return false, nil
	}
	layer, err := s.layerOfDiffID(content.DiffID)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := s.store.CheckLayer(layer.Number); err != nil {
		if _, gone := s.layer(layer.Number); gone == nil {
			content.DiffID = ""
		}
		return false, nil
	}
	if err := failpoint.Hit(failpoint.CommitAdopt); err != nil {
		return false, err
	}
	err = s.meta.Update(ctx, func(tx *metadata.Tx) error { return tx.Adopt(active.Number, layer) })
	failpoint.Pass(failpoint.CommitAdopted)
	if errdefs.IsUnavailable(err) {
		return false, nil // it was removed this moment
	}
	if err != nil {
		return false, err
	}
	s.counts.adopted.Add(1)
	active.Layer = layer.Number
	return true, s.finishStaged(ctx, request, active)
}

// record is the transaction of a Commit. From then on the call is finished, one way or
// the other, whatever its context does. What first syncs is on disk before.
func (s *Snapshotter) record(ctx context.Context, first *metadata.Barrier, request *metadata.Commit) error {
	request.Usage = request.Layer.Usage
	request.Usage.Add(request.Patch.Usage)
	if err := failpoint.Hit(failpoint.CommitRecord); err != nil {
		return err
	}
	defer failpoint.Pass(failpoint.CommitRecorded)
	return s.meta.UpdateAfter(context.WithoutCancel(ctx), first, func(tx *metadata.Tx) error {
		made, err := tx.Commit(*request)
		if err == nil {
			request.Layer.Number = made.Layer
		}
		return err
	})
}

// publish moves the directory to the layers and records it there.
func (s *Snapshotter) publish(ctx context.Context, request metadata.Commit, active metadata.Snapshot, content layerstore.Content) error {
	defer step.Enter(ctx, step.Publish)()
	n := active.Number
	defer s.store.Begin(n)()
	if err := s.unstage(ctx, active); err != nil {
		return err
	}
	if err := s.store.Place(n, content); err != nil {
		return fmt.Errorf("commit %q: %w", request.Key, err)
	}
	request.Layer = layerRecord(n, content)
	if err := s.record(ctx, s.placed, &request); inDoubt(err) {
		return err
	} else if err != nil {
		return errors.Join(err, s.store.Unpublish(n))
	}
	if request.Layer.Number != n {
		// Somebody else published it between the look and the transaction.
		if err := s.store.TrashLayer(n); err != nil {
			log.G(ctx).WithError(err).WithField("layer", n).Warn("a second copy of a layer stays until the next Cleanup")
		}
		return nil
	}
	if err := s.store.DropWork(n); err != nil {
		log.G(ctx).WithError(err).WithField("layer", n).Warn("the workdir of a committed snapshot stays until the next start")
	}
	return nil
}

func layerRecord(n uint64, content layerstore.Content) metadata.Layer {
	return metadata.Layer{
		Number: n, DiffID: content.DiffID, Empty: content.Empty, OpaqueRoot: content.OpaqueRoot,
		Usage: snapshots.Usage{Size: content.Bytes, Inodes: content.Inodes},
	}
}

// unstage takes the layer away from a staged snapshot that could not use it.
func (s *Snapshotter) unstage(ctx context.Context, active metadata.Snapshot) error {
	if active.Layer == 0 {
		return nil
	}
	if err := failpoint.Hit(failpoint.CommitUnstage); err != nil {
		return err
	}
	var freed []uint64
	err := s.meta.Update(ctx, func(tx *metadata.Tx) (err error) {
		freed, err = tx.Unstage(active.Number)
		return err
	})
	if err != nil {
		return err
	}
	failpoint.Pass(failpoint.CommitUnstaged)
	s.trashLayers(ctx, freed)
	return nil
}

func (s *Snapshotter) trashLayers(ctx context.Context, layers []uint64) {
	for _, n := range layers {
		if err := s.store.TrashLayer(n); err != nil {
			log.G(ctx).WithError(err).WithField("layer", n).Warn("the directory of a removed layer stays until the next Cleanup")
		}
	}
}

// trashUpper removes the directory of a snapshot that another layer took the place of.
func (s *Snapshotter) trashUpper(ctx context.Context, n uint64) {
	if err := s.store.TrashSnapshot(n); err != nil {
		log.G(ctx).WithError(err).WithField("number", n).Warn("the directory of a committed snapshot stays until the next Cleanup")
	}
}
