// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"

	"github.com/containerd/containerd/v2/core/snapshots"
	bolt "go.etcd.io/bbolt"
)

// Fix is one entry of a bucket that is to be written or deleted.
type Fix struct {
	bucket, key, value []byte
	remove             bool
}

func putFix(bucket, key, value []byte) Fix { return Fix{bucket: bucket, key: key, value: value} }

func deleteFix(bucket, key []byte) Fix { return Fix{bucket: bucket, key: key, remove: true} }

// ReserveFix marks the numbers below n as handed out.
func ReserveFix(n uint64) Fix { return putFix(bucketMeta, keyReserved, u64(n)) }

// LayerFixes write the record of a layer, and its diffID if it has one.
func LayerFixes(l Layer) []Fix {
	fixes := []Fix{putFix(bucketLayers, indexKey(l.Number), l.encode())}
	if k, err := digestKey(l.DiffID); err == nil {
		fixes = append(fixes, putFix(bucketDiffIDs, k, indexKey(l.Number)))
	}
	return fixes
}

// PrivateFixes take the diffID away from a layer: it serves the chains that it is in,
// and no others.
func PrivateFixes(l Layer) []Fix {
	var fixes []Fix
	if k, err := digestKey(l.DiffID); err == nil {
		fixes = append(fixes, deleteFix(bucketDiffIDs, k))
	}
	l.DiffID = ""
	return append(fixes, LayerFixes(l)...)
}

// UsageFix changes what is recorded of a snapshot's usage.
func UsageFix(s Snapshot, usage snapshots.Usage) Fix {
	r := s.record()
	r.usage = usage
	return putFix(bucketSnapshots, indexKey(s.Number), r.encode())
}

// ApplyFixes writes all of the fixes in one transaction. Whoever calls it holds the lock
// of the root, and nobody has the store open.
//
// ErrUnavailable: somebody has. ErrResourceExhausted: there is no space.
func ApplyFixes(path string, fixes []Fix) (err error) {
	if _, err := recoverStore(path); err != nil {
		return err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: checkTimeout, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return openError(path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return writeError(path, db.Update(func(tx *bolt.Tx) error {
		for _, f := range fixes {
			if err := f.apply(tx); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (f Fix) apply(tx *bolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists(f.bucket)
	switch {
	case err != nil:
		return err
	case f.key == nil:
		return nil // the bucket itself was missing
	case f.remove:
		return b.Delete(f.key)
	}
	return b.Put(f.key, f.value)
}
