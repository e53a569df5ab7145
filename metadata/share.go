// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// Adopt makes layer what the active snapshot n will be when it is committed: the
// snapshot is staged. The layer stays at least as long as the snapshot does.
//
// ErrNotFound: no such snapshot. ErrFailedPrecondition: it is not active.
// ErrUnavailable: the layer is gone, or n is staged already.
func (tx *Tx) Adopt(n uint64, layer Layer) error {
	r, err := tx.recordOf(n)
	if err != nil {
		return err
	}
	if r.kind != snapshots.KindActive {
		return fmt.Errorf("snapshot %q is %v, not active: %w", r.name, r.kind, errdefs.ErrFailedPrecondition)
	}
	if r.layer != 0 {
		return fmt.Errorf("snapshot %q has a layer already: %w", r.name, errdefs.ErrUnavailable)
	}
	if err := tx.checkShared(layer); err != nil {
		return err
	}
	r.layer = layer.Number
	if err := tx.put(bucketSnapshots, numberKey(n), r.encode()); err != nil {
		return err
	}
	return tx.put(bucketRefs, pair(layer.Number, n), nil)
}

// PublishStaged adds a layer and makes the active snapshot n, whose directory it was,
// staged on it.
//
// ErrAlreadyExists: there is a layer with that diffID. Otherwise as Adopt.
func (tx *Tx) PublishStaged(n uint64, layer Layer) error {
	if _, err := tx.LayerByDiffID(layer.DiffID); err == nil {
		return fmt.Errorf("layer with diffID %s: %w", layer.DiffID, errdefs.ErrAlreadyExists)
	}
	if tx.HasLayer(layer.Number) {
		return fmt.Errorf("layer %d: %w", layer.Number, errdefs.ErrAlreadyExists)
	}
	r, err := tx.recordOf(n)
	if err != nil {
		return err
	}
	if r.kind != snapshots.KindActive || r.layer != 0 {
		return fmt.Errorf("snapshot %q is committed or staged already: %w", r.name, errdefs.ErrUnavailable)
	}
	if err := tx.addLayer(layer); err != nil {
		return err
	}
	return tx.Adopt(n, layer)
}

// AddLayer adds a layer that nothing refers to yet: the same transaction must change
// that. If there is one of that diffID, that one is returned and nothing added.
func (tx *Tx) AddLayer(l Layer) (Layer, error) {
	same, err := tx.LayerByDiffID(l.DiffID)
	if !errdefs.IsNotFound(err) {
		return same, err
	}
	return l, tx.addLayer(l)
}

// Unstage takes the layer of the staged snapshot n away from it again, and returns the
// layers that nothing refers to any more.
func (tx *Tx) Unstage(n uint64) (freed []uint64, err error) {
	r, err := tx.recordOf(n)
	if err != nil || r.kind != snapshots.KindActive || r.layer == 0 {
		return nil, err
	}
	layer := r.layer
	r.layer = 0
	if err := tx.put(bucketSnapshots, numberKey(n), r.encode()); err != nil {
		return nil, err
	}
	return tx.unrefer(layer, n)
}

// Share describes a snapshot that is committed as it is made, of a layer that is there.
type Share struct {
	Create
	// Layer is in the store. Patch, if it has a number, goes on top of it. SharedPatch: it
	// is in the store, too.
	Layer, Patch Layer
	SharedPatch  bool
}

// Share makes a committed snapshot, which takes no extraction.
//
// ErrUnavailable: the layer is gone, or the patch (ErrPatchGone). Otherwise as Create.
func (tx *Tx) Share(c Share) (Snapshot, error) {
	if err := checkNameAndLabels(c.Key, c.Labels); err != nil {
		return Snapshot{}, err
	}
	parent, err := tx.committedParent(c.Key, c.Parent, errdefs.ErrInvalidArgument)
	if err != nil {
		return Snapshot{}, err
	}
	if tx.number(c.Key) != 0 {
		return Snapshot{}, fmt.Errorf("snapshot %q: %w", c.Key, errdefs.ErrAlreadyExists)
	}
	if err := tx.checkShared(c.Layer); err != nil {
		return Snapshot{}, err
	}
	if c.SharedPatch {
		if err := tx.checkPatch(c.Patch); err != nil {
			return Snapshot{}, err
		}
	}
	t := now()
	r := &record{
		name: c.Key, kind: snapshots.KindCommitted, parent: parent, layer: c.Layer.Number, patch: c.Patch.Number,
		usage: c.Layer.Usage, created: t, updated: t, labels: cleanLabels(c.Labels),
	}
	r.usage.Add(c.Patch.Usage)
	if err := tx.insert(c.Number, r); err != nil {
		return Snapshot{}, err
	}
	for _, l := range []Layer{c.Layer, c.Patch} {
		if l.Number == 0 {
			continue
		}
		if _, err := tx.refer(l, c.Number); err != nil {
			return Snapshot{}, err
		}
	}
	return tx.snapshot(c.Number, r)
}

// checkShared makes sure that a layer that was looked up earlier is still there.
func (tx *Tx) checkShared(l Layer) error {
	if now, err := tx.GetLayer(l.Number); err != nil || now.DiffID != l.DiffID {
		return fmt.Errorf("layer %d was removed meanwhile: %w", l.Number, errdefs.ErrUnavailable)
	}
	return nil
}

// CommittedByRef returns the committed snapshots whose label
// containerd.io/snapshot.ref is ref, and whose parent has the number given, 0 for none.
func (tx *Tx) CommittedByRef(ref string, parent uint64) (found []Snapshot, err error) {
	err = tx.seconds(bucketByRef, hashRef(ref), func(n uint64) (bool, error) {
		r, err := tx.recordOf(n)
		if err != nil {
			return false, err
		}
		if r.kind != snapshots.KindCommitted || r.parent != parent || r.labels[snapshots.LabelSnapshotRef] != ref {
			return true, nil
		}
		s, err := tx.snapshot(n, r)
		found = append(found, s)
		return true, err
	})
	return found, err
}

// ReferredBy says whether one of the snapshots that refer to layer n has a name that
// owned accepts.
func (tx *Tx) ReferredBy(n uint64, owned func(name string) bool) (yes bool, err error) {
	err = tx.seconds(bucketRefs, n, func(s uint64) (bool, error) {
		r, err := tx.recordOf(s)
		if err != nil {
			return false, err
		}
		yes = owned(r.name)
		return !yes, nil
	})
	return yes, err
}

// Charged returns what a snapshot is charged for: the bytes and inodes of those of its
// layers that no older snapshot refers to. So the sum over all snapshots is what the
// layers take, and what a snapshot was charged for is the next one's when it goes.
func (tx *Tx) Charged(s Snapshot) (sum snapshots.Usage, err error) {
	for _, n := range []uint64{s.Layer, s.Patch} {
		if n == 0 {
			continue
		}
		oldest := uint64(0)
		err := tx.seconds(bucketRefs, n, func(ref uint64) (bool, error) {
			oldest = ref
			return false, nil
		})
		if err != nil || oldest != s.Number {
			if err != nil {
				return sum, err
			}
			continue
		}
		l, err := tx.GetLayer(n)
		if err != nil {
			return sum, err
		}
		sum.Add(l.Usage)
	}
	return sum, nil
}
