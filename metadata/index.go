// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// entry is a key and value that finds a snapshot.
type entry struct{ bucket, key, value []byte }

// entriesOf are the index entries of snapshot n.
func entriesOf(n uint64, r *record) []entry {
	entries := make([]entry, 1, 3)
	entries[0] = entry{bucketNames, nameKey(r.name), numberKey(n)}
	if r.parent != 0 {
		entries = append(entries, entry{bucketChildren, pair(r.parent, n), nil})
	}
	if ref := r.labels[snapshots.LabelSnapshotRef]; ref != "" {
		entries = append(entries, entry{bucketByRef, pair(hashRef(ref), n), nil})
	}
	return entries
}

func (e entry) in(entries []entry) bool {
	for _, other := range entries {
		if bytes.Equal(e.bucket, other.bucket) && bytes.Equal(e.key, other.key) {
			return true
		}
	}
	return false
}

// insert writes a record and its index entries.
func (tx *Tx) insert(n uint64, r *record) error {
	return tx.change(n, r.encode(), nil, entriesOf(n, r))
}

// replace writes a record in the place of another one of the same number. Index entries
// that stay as they are are not touched: each is a page to be written.
func (tx *Tx) replace(n uint64, old, r *record) error {
	return tx.change(n, r.encode(), entriesOf(n, old), entriesOf(n, r))
}

// erase deletes a record and its index entries.
func (tx *Tx) erase(n uint64, r *record) error {
	if err := tx.delete(bucketSnapshots, numberKey(n)); err != nil {
		return err
	}
	for _, e := range entriesOf(n, r) {
		if err := tx.delete(e.bucket, e.key); err != nil {
			return err
		}
	}
	return nil
}

func (tx *Tx) change(n uint64, encoded []byte, old, now []entry) error {
	for _, e := range old {
		if e.in(now) {
			continue
		}
		if err := tx.delete(e.bucket, e.key); err != nil {
			return err
		}
	}
	for _, e := range now {
		if e.in(old) {
			continue
		}
		if err := tx.put(e.bucket, e.key, e.value); err != nil {
			return err
		}
	}
	return tx.put(bucketSnapshots, numberKey(n), encoded)
}
