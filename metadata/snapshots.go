// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	clabels "github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Snapshot is what the store knows about one snapshot.
type Snapshot struct {
	snapshots.Info
	// Number names the snapshot's directory. It stays when an active snapshot
	// is committed.
	Number uint64
	// ParentNumber is the parent's number, 0 without a parent.
	ParentNumber uint64
	// Layer is the number of the layer a committed snapshot adds, or the one that a
	// staged one will add: an active snapshot that a layer was found for. 0 otherwise.
	Layer uint64
	// Patch is the number of the layer of directories on top of Layer, 0 for none.
	Patch uint64
	// Usage is what a committed snapshot was found to use, its layer shared or not; see
	// Charged.
	Usage snapshots.Usage
}

// Create describes a snapshot to be made.
type Create struct {
	Number uint64 // from Reserve
	Kind   snapshots.Kind
	Key    string
	Parent string // name of a committed snapshot, or empty
	Labels map[string]string
}

// Commit describes how an active snapshot becomes a committed one.
type Commit struct {
	Key, Name string
	// Parent is given to a snapshot that has none yet. Empty leaves it.
	Parent string
	// Labels replace those of the active snapshot.
	Labels map[string]string
	Usage  snapshots.Usage
	// Layer is what the snapshot adds to its chain. One that the store has
	// already, or one with a diffID that another layer of the store has, gets one
	// reference more, and is left as it is.
	Layer Layer
	// Patch, if it has a number, goes on top of Layer: directories whose metadata
	// the chain below decides. SharedPatch: it was found in the store, by NextPatch.
	Patch       Layer
	SharedPatch bool
	// Blob, if set, is known to unpack to the layer with DiffID.
	Blob, DiffID digest.Digest
}

// Removed says what is no longer referred to.
type Removed struct {
	Number uint64
	Kind   snapshots.Kind
	// Layers lost their last reference and are no longer in the store. Their
	// directories are to be deleted once the transaction is committed.
	Layers []uint64
	// Labels are those that the snapshot had.
	Labels map[string]string
}

// Get returns the snapshot called name. ErrNotFound if there is none.
func (tx *Tx) Get(name string) (Snapshot, error) {
	n, r, err := tx.lookup(name)
	if err != nil {
		return Snapshot{}, err
	}
	return tx.snapshot(n, r)
}

// ByNumber returns the snapshot with number n. ErrNotFound if there is none.
func (tx *Tx) ByNumber(n uint64) (Snapshot, error) {
	r, err := tx.recordOf(n)
	if err != nil {
		return Snapshot{}, err
	}
	return tx.snapshot(n, r)
}

func (tx *Tx) snapshot(n uint64, r *record) (Snapshot, error) {
	s := Snapshot{
		Info: snapshots.Info{
			Kind:    r.kind,
			Name:    r.name,
			Labels:  r.labels,
			Created: r.created,
			Updated: r.updated,
		},
		Number:       n,
		ParentNumber: r.parent,
		Layer:        r.layer,
		Patch:        r.patch,
		Usage:        r.usage,
	}
	if r.parent == 0 {
		return s, nil
	}
	p, err := tx.headOf(r.parent)
	if err != nil {
		return Snapshot{}, fmt.Errorf("parent of snapshot %q: %w", r.name, err)
	}
	s.Parent = p.name
	return s, nil
}

// HasSnapshot says whether a snapshot has number n.
func (tx *Tx) HasSnapshot(n uint64) bool {
	return tx.bucket(bucketSnapshots).Get(numberKey(n)) != nil
}

// Create makes an active snapshot or a view.
//
// ErrNotFound: no such parent. ErrInvalidArgument: the parent is not committed,
// the kind is neither active nor view, the key is empty or too long, or a label
// is over containerd's 4096 bytes. ErrAlreadyExists: the key is taken.
func (tx *Tx) Create(c Create) (Snapshot, error) {
	if c.Kind != snapshots.KindActive && c.Kind != snapshots.KindView {
		return Snapshot{}, fmt.Errorf("snapshot %q: a snapshot is created active or as a view, not %v: %w", c.Key, c.Kind, errdefs.ErrInvalidArgument)
	}
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
	t := now()
	r := &record{name: c.Key, kind: c.Kind, parent: parent, created: t, updated: t, labels: cleanLabels(c.Labels)}
	if err := tx.insert(c.Number, r); err != nil {
		return Snapshot{}, err
	}
	return tx.snapshot(c.Number, r)
}

// committedParent finds the number of a parent; 0 for no parent. notCommitted
// is the class of the error when it is there but can't have children.
func (tx *Tx) committedParent(key, parent string, notCommitted error) (uint64, error) {
	if parent == "" {
		return 0, nil
	}
	n, r, err := tx.lookupHead(parent)
	if err != nil {
		return 0, fmt.Errorf("parent of snapshot %q: %w", key, err)
	}
	if r.kind != snapshots.KindCommitted {
		return 0, fmt.Errorf("parent %q of snapshot %q is not committed: %w", parent, key, notCommitted)
	}
	return n, nil
}

// Commit turns the active snapshot Key into the committed snapshot Name, with
// the same number. The layer it has then is that of Layer, or the one of its diffID
// that was there.
//
// ErrAlreadyExists: the name is taken. ErrNotFound: no such key, or no such
// parent. ErrFailedPrecondition: the key is not active, or the parent is not
// committed. ErrInvalidArgument: another parent than the snapshot has, or a
// name or label that Create would refuse. ErrUnavailable: it became staged on another
// layer meanwhile, or the patch is gone (ErrPatchGone).
func (tx *Tx) Commit(c Commit) (Snapshot, error) {
	n, old, err := tx.committable(c)
	if err != nil {
		return Snapshot{}, err
	}
	parent := old.parent
	if parent == 0 {
		if parent, err = tx.committedParent(c.Key, c.Parent, errdefs.ErrFailedPrecondition); err != nil {
			return Snapshot{}, err
		}
	}
	t := now()
	r := &record{
		name: c.Name, kind: snapshots.KindCommitted, parent: parent, layer: c.Layer.Number, patch: c.Patch.Number,
		usage: c.Usage, created: t, updated: t, labels: cleanLabels(c.Labels),
	}
	if old.layer != 0 && old.layer != c.Layer.Number {
		return Snapshot{}, fmt.Errorf("commit %q: it is staged on layer %d, not %d: %w", c.Key, old.layer, c.Layer.Number, errdefs.ErrUnavailable)
	}
	if c.SharedPatch {
		if err := tx.checkPatch(c.Patch); err != nil {
			return Snapshot{}, err
		}
	}
	if r.layer, err = tx.refer(c.Layer, n); err != nil {
		return Snapshot{}, err
	}
	if c.Patch.Number != 0 {
		if _, err := tx.refer(c.Patch, n); err != nil {
			return Snapshot{}, err
		}
	}
	if err := tx.replace(n, old, r); err != nil {
		return Snapshot{}, err
	}
	if c.Blob != "" {
		if err := tx.BindBlob(c.Blob, c.DiffID); err != nil {
			return Snapshot{}, err
		}
	}
	return tx.snapshot(n, r)
}

// CheckCommit answers what Commit would, without writing: for those who have
// work to do before.
func (tx *Tx) CheckCommit(c Commit) (Snapshot, error) {
	n, old, err := tx.committable(c)
	if err != nil {
		return Snapshot{}, err
	}
	if old.parent == 0 {
		if _, err := tx.committedParent(c.Key, c.Parent, errdefs.ErrFailedPrecondition); err != nil {
			return Snapshot{}, err
		}
	}
	return tx.snapshot(n, old)
}

func (tx *Tx) committable(c Commit) (uint64, *record, error) {
	if err := checkNameAndLabels(c.Name, c.Labels); err != nil {
		return 0, nil, err
	}
	if tx.number(c.Name) != 0 {
		return 0, nil, fmt.Errorf("commit %q as %q: the name is taken: %w", c.Key, c.Name, errdefs.ErrAlreadyExists)
	}
	n, r, err := tx.lookup(c.Key)
	if err != nil {
		return 0, nil, fmt.Errorf("commit %q: %w", c.Key, err)
	}
	if r.kind != snapshots.KindActive {
		return 0, nil, fmt.Errorf("commit %q: it is %v, not active: %w", c.Key, r.kind, errdefs.ErrFailedPrecondition)
	}
	if r.parent != 0 && c.Parent != "" && tx.number(c.Parent) != r.parent {
		return 0, nil, fmt.Errorf("commit %q: it has a parent already, which can't become %q: %w", c.Key, c.Parent, errdefs.ErrInvalidArgument)
	}
	return n, r, nil
}

// Remove deletes the snapshot called name and its reference to a layer.
//
// ErrNotFound: there is none. ErrFailedPrecondition: it has children.
func (tx *Tx) Remove(name string) (Removed, error) {
	n, r, err := tx.lookup(name)
	if err != nil {
		return Removed{}, fmt.Errorf("remove: %w", err)
	}
	if tx.hasSeconds(bucketChildren, n) {
		return Removed{}, fmt.Errorf("cannot remove snapshot %q: it has children: %w", name, errdefs.ErrFailedPrecondition)
	}
	if err := tx.erase(n, r); err != nil {
		return Removed{}, err
	}
	removed := Removed{Number: n, Kind: r.kind, Labels: r.labels}
	for _, layer := range []uint64{r.layer, r.patch} {
		freed, err := tx.unrefer(layer, n)
		if err != nil {
			return Removed{}, err
		}
		removed.Layers = append(removed.Layers, freed...)
	}
	return removed, nil
}

func checkNameAndLabels(name string, labels map[string]string) error {
	if name == "" {
		return fmt.Errorf("a snapshot needs a name: %w", errdefs.ErrInvalidArgument)
	}
	if len(nameKey(name)) > bolt.MaxKeySize {
		return fmt.Errorf("the name of a snapshot has at most %d bytes, this one has %d: %w", bolt.MaxKeySize, len(name), errdefs.ErrInvalidArgument)
	}
	for k, v := range labels {
		if k == "" {
			return fmt.Errorf("snapshot %q: a label has no name: %w", name, errdefs.ErrInvalidArgument)
		}
		if err := clabels.Validate(k, v); err != nil {
			return fmt.Errorf("snapshot %q: %w", name, err)
		}
	}
	return nil
}
