// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// Tx is a transaction that View or Update handed out. It is only valid until
// the function it was given to returns.
type Tx struct {
	tx    *bolt.Tx
	wrote bool // something was put or deleted: an error now needs a rollback
}

func (tx *Tx) bucket(name []byte) *bolt.Bucket {
	return tx.tx.Bucket(name)
}

func (tx *Tx) put(bucket, k, v []byte) error {
	tx.wrote = true
	b := tx.bucket(bucket)
	// Most keys grow (numbers) or nearly do (names begin with a counter).
	// Leaves that are split in the middle would stay half empty for good.
	b.FillPercent = 0.9
	return b.Put(k, v)
}

func (tx *Tx) delete(bucket, k []byte) error {
	tx.wrote = true
	return tx.bucket(bucket).Delete(k)
}

// seconds calls fn with the second half of every pair key that begins with
// first, in order, until fn says to stop.
func (tx *Tx) seconds(bucket []byte, first uint64, fn func(uint64) (more bool, err error)) error {
	prefix := u64(first)
	c := tx.bucket(bucket).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		if more, err := fn(second(k)); err != nil || !more {
			return err
		}
	}
	return nil
}

func (tx *Tx) hasSeconds(bucket []byte, first uint64) bool {
	prefix := u64(first)
	k, _ := tx.bucket(bucket).Cursor().Seek(prefix)
	return bytes.HasPrefix(k, prefix)
}

// number finds the number of a name; 0 where there is none.
func (tx *Tx) number(name string) uint64 {
	v := tx.bucket(bucketNames).Get([]byte(name))
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}

// recordOf reads the snapshot with number n, which some other record named.
func (tx *Tx) recordOf(n uint64) (*record, error) {
	v := tx.bucket(bucketSnapshots).Get(u64(n))
	if v == nil {
		return nil, fmt.Errorf("snapshot number %d: %w", n, errdefs.ErrNotFound)
	}
	r, err := decodeRecord(v)
	if err != nil {
		return nil, fmt.Errorf("snapshot number %d: %w", n, err)
	}
	return r, nil
}

// lookup reads the snapshot called name.
func (tx *Tx) lookup(name string) (uint64, *record, error) {
	n := tx.number(name)
	if n == 0 {
		return 0, nil, fmt.Errorf("snapshot %q does not exist: %w", name, errdefs.ErrNotFound)
	}
	r, err := tx.recordOf(n)
	return n, r, err
}
