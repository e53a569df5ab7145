// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"fmt"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// Tx is a transaction that View or Update handed out. It is only valid until
// the function it was given to returns.
type Tx struct {
	tx    *bolt.Tx
	wrote bool // something was put or deleted: an error now needs a rollback
	// log collects the changes for metadata.log, in a transaction that writes.
	log *[]byte
	// chains are those known to all readers, nil in a transaction that writes.
	chains *chains
}

func (tx *Tx) bucket(name []byte) *bolt.Bucket {
	return tx.tx.Bucket(name)
}

func (tx *Tx) put(bucket, k, v []byte) error {
	tx.note(bucket, k, v)
	b := tx.bucket(bucket)
	// Most keys grow, or nearly do. Leaves that are split in the middle would stay half
	// empty for good. Hashes come in no order: where a leaf is all but full, the next
	// one splits it again, and leaves little in the new half.
	if b.FillPercent = 0.9; isHashed(bucket) {
		b.FillPercent = 0.5
	}
	return b.Put(k, v)
}

func isHashed(bucket []byte) bool {
	for _, hashed := range [][]byte{bucketByRef, bucketDiffIDs, bucketBlobs} {
		if bytes.Equal(bucket, hashed) {
			return true
		}
	}
	return false
}

func (tx *Tx) delete(bucket, k []byte) error {
	tx.note(bucket, k, nil)
	return tx.bucket(bucket).Delete(k)
}

// note is called before an entry is written, or, with nil, deleted.
func (tx *Tx) note(bucket, k, v []byte) {
	tx.wrote = true
	if tx.log != nil {
		*tx.log = appendEntry(*tx.log, bucket, k, v)
	}
}

// seconds calls fn with the second half of every pair key that begins with
// first, in order, until fn says to stop.
func (tx *Tx) seconds(bucket []byte, first uint64, fn func(uint64) (more bool, err error)) error {
	return tx.secondsAfter(bucket, first, 0, fn)
}

// secondsAfter is seconds for those above a number.
func (tx *Tx) secondsAfter(bucket []byte, first, after uint64, fn func(uint64) (more bool, err error)) error {
	prefix := numberKey(first)
	c := tx.bucket(bucket).Cursor()
	for k, _ := c.Seek(pair(first, after+1)); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		if more, err := fn(second(k)); err != nil || !more {
			return err
		}
	}
	return nil
}

func (tx *Tx) hasSeconds(bucket []byte, first uint64) bool {
	prefix := numberKey(first)
	k, _ := tx.bucket(bucket).Cursor().Seek(prefix)
	return bytes.HasPrefix(k, prefix)
}

// number finds the number of a name; 0 where there is none.
func (tx *Tx) number(name string) uint64 {
	return numberOf(tx.bucket(bucketNames).Get(nameKey(name)))
}

// recordOf reads the snapshot with number n, which some other record named.
func (tx *Tx) recordOf(n uint64) (*record, error) {
	return tx.readRecord(n, decodeRecord)
}

// headOf is recordOf without labels: for those who only pass through.
func (tx *Tx) headOf(n uint64) (*record, error) {
	return tx.readRecord(n, func(b []byte) (*record, error) {
		d := &decoder{b: b}
		r := decodeHead(d)
		return r, d.err
	})
}

func (tx *Tx) readRecord(n uint64, decode func([]byte) (*record, error)) (*record, error) {
	v := tx.bucket(bucketSnapshots).Get(numberKey(n))
	if v == nil {
		return nil, fmt.Errorf("snapshot number %d: %w", n, errdefs.ErrNotFound)
	}
	r, err := decode(v)
	if err != nil {
		return nil, fmt.Errorf("snapshot number %d: %w", n, err)
	}
	return r, nil
}

// lookup reads the snapshot called name.
func (tx *Tx) lookup(name string) (uint64, *record, error) {
	return tx.readNamed(name, tx.recordOf)
}

func (tx *Tx) lookupHead(name string) (uint64, *record, error) {
	return tx.readNamed(name, tx.headOf)
}

func (tx *Tx) readNamed(name string, read func(uint64) (*record, error)) (uint64, *record, error) {
	n := tx.number(name)
	if n == 0 {
		return 0, nil, fmt.Errorf("snapshot %q does not exist: %w", name, errdefs.ErrNotFound)
	}
	r, err := read(n)
	return n, r, err
}
