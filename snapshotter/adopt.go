// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// flights knows which blobs are being extracted, so that each is only once at a time,
// and which were but are not committed yet. Whoever waits goes on when the extraction
// has ended, not with its Commit: that may have to wait for layers below, which in turn
// may wait for this one.
type flights struct {
	blobs keyLocks

	mu     sync.Mutex
	sealed map[digest.Digest]uint64 // blob → number of the active snapshot that holds its layer
}

func (f *flights) landed(blob digest.Digest, n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sealed == nil {
		f.sealed = map[digest.Digest]uint64{}
	}
	f.sealed[blob] = n
}

func (f *flights) holder(blob digest.Digest) (n uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok = f.sealed[blob]
	return n, ok
}

// forget is called when snapshot n is committed, removed or written to again.
func (f *flights) forget(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for blob, holder := range f.sealed {
		if holder == n {
			delete(f.sealed, blob)
		}
	}
}

// MayAdopt says whether Adopt is likely to find the layer: it is asked before anything
// is known of the caller's right to it.
func (st *Stage) MayAdopt() bool {
	if !st.shares() {
		return false
	}
	if _, ok := st.s.flights.holder(st.blob.Digest); ok || st.s.ahead.has(st.blob.Digest) {
		return true
	}
	return st.s.meta.View(func(tx *metadata.Tx) error {
		diffID, err := tx.DiffIDOf(st.blob.Digest)
		if err == nil {
			_, err = tx.LayerByDiffID(diffID)
		}
		return err
	}) == nil
}

// Adopt looks whether the layer of the stage's blob is here already, and gives it to
// the snapshot if it is: nothing is to be extracted then. The caller knows that the
// blob is its own: that is what entitles it to the layer, whatever the policy.
func (st *Stage) Adopt(ctx context.Context) (archive.Result, bool, error) {
	s := st.s
	if !st.shares() {
		return archive.Result{}, false, nil
	}
	f, err := s.adoptable(ctx, st)
	if errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
		return archive.Result{}, false, nil
	}
	if err != nil {
		return archive.Result{}, false, err
	}
	result, err := s.adopt(ctx, st, f)
	if errdefs.IsUnavailable(err) {
		return archive.Result{}, false, s.store.DropSeal(st.active.Number) // it was removed this moment
	}
	if err != nil {
		return archive.Result{}, false, err
	}
	st.sealed = true
	s.countUse(f, &s.counts.adopted)
	log.G(ctx).WithField("diffID", f.layer.DiffID).WithField("layer", f.layer.Number).Debug("a layer that is here already is not extracted again")
	return result, true, nil
}

// adopt stages a snapshot on a layer. ErrUnavailable: the layer is gone.
func (s *Snapshotter) adopt(ctx context.Context, st *Stage, f found) (archive.Result, error) {
	m, err := s.store.ReadManifest(f.layer.Number)
	if err != nil {
		s.drop(ctx, f)
		return archive.Result{}, err
	}
	result := archive.Result{DiffID: f.layer.DiffID, Size: m.Size, Bytes: m.Bytes, Inodes: m.Inodes, Empty: m.Empty, OpaqueRoot: m.OpaqueRoot}
	// For the case that its chain asks for it to be extracted after all.
	if len(m.Needs) > 0 {
		sealed := seal{DiffID: f.layer.DiffID, Blob: st.blob, Size: m.Size}
		if err := s.store.WriteSeal(st.active.Number, &sealed); err != nil {
			s.drop(ctx, f)
			return archive.Result{}, err
		}
	}
	if err := failpoint.Hit(failpoint.AdoptRecord); err != nil {
		s.drop(ctx, f)
		return archive.Result{}, err
	}
	err = s.use(ctx, f, func(tx *metadata.Tx, layer metadata.Layer) error { return tx.Adopt(st.active.Number, layer) })
	failpoint.Pass(failpoint.AdoptRecorded)
	return result, err
}

// shares says whether what is extracted into the snapshot may serve others, and the
// other way round.
func (st *Stage) shares() bool {
	return st.s.cfg.Sharing != SharingOff && isExtraction(st.active.Info) && st.active.Layer == 0
}

// adoptable is the layer of a stage's blob, if its snapshot can have it.
//
// ErrNotFound, ErrUnavailable: it has to be extracted.
func (s *Snapshotter) adoptable(ctx context.Context, st *Stage) (f found, err error) {
	if err := s.checkOwnRoot(st.active); err != nil {
		return f, err
	}
	f, err = s.findAhead(ctx,
		func() (metadata.Layer, error) { return s.layerOfBlob(ctx, st.blob.Digest) },
		func(e *aheadEntry) bool { return e.Blob.Digest == st.blob.Digest })
	if err == nil && f.ahead == nil {
		err = s.store.CheckLayer(f.layer.Number)
	}
	return f, err
}

// checkOwnRoot fails with ErrNotFound if the root directory of a snapshot looks as that
// of its parent, and not as those of shared layers do. Without a parent it never does.
func (s *Snapshotter) checkOwnRoot(active metadata.Snapshot) error {
	chain, err := s.chainOf(active.ParentNumber)
	if err != nil {
		return err
	}
	return s.checkRoot(chain)
}

// layerOfBlob finds the layer that a blob was seen to be. ErrNotFound: there is none.
func (s *Snapshotter) layerOfBlob(ctx context.Context, blob digest.Digest) (layer metadata.Layer, err error) {
	// Asked first: a Commit remembers the blob before it is forgotten here.
	n, ok := s.flights.holder(blob)
	err = s.meta.View(func(tx *metadata.Tx) error {
		diffID, err := tx.DiffIDOf(blob)
		if err == nil {
			layer, err = tx.LayerByDiffID(diffID)
		}
		return err
	})
	if !errdefs.IsNotFound(err) {
		return layer, err
	}
	if !ok {
		return layer, err
	}
	return s.promote(ctx, n)
}

// promote publishes the layer that snapshot n holds before its Commit, for somebody
// else who has the same to extract. The snapshot is staged then.
//
// ErrNotFound: it holds none any more, or none that others can use.
func (s *Snapshotter) promote(ctx context.Context, n uint64) (layer metadata.Layer, err error) {
	active, err := s.byNumber(n)
	if err != nil {
		return layer, err
	}
	unlock, err := s.keys.lock(ctx, active.Name)
	if err != nil {
		return layer, err
	}
	defer unlock()
	if active, err = s.byNumber(n); err != nil {
		return layer, err
	}
	if active.Layer != 0 {
		if layer, err = s.layer(active.Layer); err == nil && layer.DiffID == "" {
			err = fmt.Errorf("layer %d is private: %w", layer.Number, errdefs.ErrNotFound)
		}
		return layer, err
	}
	if err := s.checkOwnRoot(active); err != nil {
		return layer, err
	}
	var sealed seal
	if err := s.store.ReadSeal(n, &sealed); err != nil {
		return layer, err
	}
	content, err := sealed.content()
	if err != nil {
		return layer, err
	}
	if content.DiffID == "" || !sealed.Needs.None() {
		// What it needs of its own parents is answered at its Commit, in its directory.
		return layer, fmt.Errorf("layer %s is not for others yet: %w", sealed.DiffID, errdefs.ErrNotFound)
	}
	// Another blob of the same layer may have been faster.
	if layer, err = s.layerOfDiffID(content.DiffID); !errdefs.IsNotFound(err) {
		return layer, err
	}
	return s.publishStaged(ctx, n, content, sealed.Blob.Digest)
}

// publishStaged is the part of promote that changes something. The caller holds the lock
// of the snapshot's key.
func (s *Snapshotter) publishStaged(ctx context.Context, n uint64, content layerstore.Content, blob digest.Digest) (layer metadata.Layer, err error) {
	defer step.Enter(ctx, step.Publish)()
	defer s.store.Begin(n)()
	if err := s.store.Publish(n, content); err != nil {
		return layer, err
	}
	layer = layerRecord(n, content)
	err = s.meta.Update(context.WithoutCancel(ctx), func(tx *metadata.Tx) error {
		if err := failpoint.Hit(failpoint.PromoteRecord); err != nil {
			return err
		}
		if err := tx.PublishStaged(n, layer); err != nil {
			return err
		}
		// It has no holder any more: the next who has the blob finds the layer by this.
		return tx.BindBlob(blob, layer.DiffID)
	})
	if inDoubt(err) {
		return layer, err
	}
	if err != nil {
		undone := s.store.Unpublish(n)
		if undone == nil && errdefs.IsAlreadyExists(err) {
			return s.layerOfDiffID(content.DiffID)
		}
		return layer, errors.Join(err, undone)
	}
	failpoint.Pass(failpoint.PromoteRecorded)
	s.flights.forget(n)
	if err := s.store.DropWork(n); err != nil {
		log.G(ctx).WithError(err).WithField("layer", n).Warn("the workdir of a layer stays until the next start")
	}
	return layer, nil
}

func (s *Snapshotter) layerOfDiffID(diffID digest.Digest) (layer metadata.Layer, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		layer, err = tx.LayerByDiffID(diffID)
		return err
	})
	return layer, err
}

func (s *Snapshotter) byNumber(n uint64) (snapshot metadata.Snapshot, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		snapshot, err = tx.ByNumber(n)
		return err
	})
	return snapshot, err
}
