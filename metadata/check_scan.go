// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// scan is what Inspect read.
type scan struct {
	c       *Contents
	names   map[string]uint64 // by their keys; 0: the value can't be read
	diffIDs map[digest.Digest]uint64
	links   map[string]map[link]bool // by bucket
	missing []string                 // buckets
}

func newScan() *scan {
	return &scan{
		c: &Contents{
			Snapshots: map[uint64]Snapshot{}, Layers: map[uint64]Layer{}, Blobs: map[digest.Digest]digest.Digest{},
			SnapshotsUnreadable: map[uint64]bool{}, LayersUnreadable: map[uint64]bool{},
		},
		names:   map[string]uint64{},
		diffIDs: map[digest.Digest]uint64{},
		links:   map[string]map[link]bool{},
	}
}

func (s *scan) add(p Problem) { s.c.Problems = append(s.c.Problems, p) }

// read goes through all buckets. A record that can't be decoded is a problem and no error.
func (s *scan) read(tx *bolt.Tx) error {
	s.findBuckets(tx)
	readers := map[string]func(k, v []byte){
		string(bucketMeta):      s.readMeta,
		string(bucketSnapshots): s.readSnapshot,
		string(bucketLayers):    s.readLayer,
		string(bucketNames):     s.readName,
		string(bucketDiffIDs):   s.readDiffID,
		string(bucketBlobs):     s.readBlob,
	}
	for _, name := range [][]byte{bucketChildren, bucketByRef, bucketRefs} {
		s.links[string(name)] = map[link]bool{}
		readers[string(name)] = func(k, _ []byte) { s.readLink(name, k) }
	}
	s.c.Reserved, s.c.last = 1, uint64(tx.ID())
	for _, name := range buckets {
		b := tx.Bucket(name)
		if b == nil {
			continue
		}
		err := b.ForEach(func(k, v []byte) error {
			readers[string(name)](k, v)
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.c.Incomplete = s.c.Incomplete || len(s.c.SnapshotsUnreadable) > 0
	return nil
}

func (s *scan) findBuckets(tx *bolt.Tx) {
	for _, name := range buckets {
		if tx.Bucket(name) == nil {
			s.missing = append(s.missing, string(name))
			s.c.Incomplete = s.c.Incomplete || bytes.Equal(name, bucketSnapshots)
		}
	}
	c := tx.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if !slices.ContainsFunc(buckets, func(b []byte) bool { return bytes.Equal(b, k) }) {
			s.add(Problem{Code: ProblemBucketUnknown, Key: string(k), Text: fmt.Sprintf("this program knows no bucket %q", k)})
		}
	}
}

func (s *scan) readMeta(k, v []byte) {
	if !bytes.Equal(k, keyReserved) {
		return // the format was looked at before; others are a compatible feature's
	}
	if len(v) != 8 {
		s.c.ReservedUnreadable = true
		return
	}
	s.c.Reserved = binary.BigEndian.Uint64(v)
}

func (s *scan) readSnapshot(k, v []byte) {
	n, ok := readNumber(k)
	r, err := decodeRecord(v)
	if !ok || err != nil {
		s.c.Incomplete = true
		if ok {
			s.c.SnapshotsUnreadable[n] = true
		}
		s.add(Problem{Code: ProblemSnapshotUnreadable, Number: n, Text: fmt.Sprintf("the record with key %x can't be read: %v", k, keyError(ok, err))})
		return
	}
	s.c.Snapshots[n] = r.snapshot(n)
}

func (s *scan) readLayer(k, v []byte) {
	n, ok := readNumber(k)
	l, err := decodeLayer(n, v)
	if ok && err == nil && l.DiffID != "" {
		err = l.DiffID.Validate()
	}
	if ok && err == nil {
		s.c.Layers[n] = l
		return
	}
	p := Problem{Code: ProblemLayerUnreadable, Number: n, Text: fmt.Sprintf("the record with key %x can't be read: %v", k, keyError(ok, err))}
	if ok {
		s.c.LayersUnreadable[n] = true
	} else {
		p.Fixes = []Fix{deleteFix(bucketLayers, bytes.Clone(k))} // no number leads to it
	}
	s.add(p)
}

func keyError(ok bool, err error) error {
	if !ok {
		return fmt.Errorf("its key is no number")
	}
	return err
}

func (s *scan) readName(k, v []byte) {
	n, _ := readNumber(v)
	s.names[string(k)] = n
}

func (s *scan) readDiffID(k, v []byte) {
	d, err := decodeDigest(k)
	if err != nil {
		s.unreadableIndex(bucketDiffIDs, k)
		return
	}
	n, _ := readNumber(v)
	s.diffIDs[d] = n
}

func (s *scan) readLink(bucket, k []byte) {
	l, ok := readLink(k)
	if !ok {
		s.unreadableIndex(bucket, k)
		return
	}
	s.links[string(bucket)][l] = true
}

func (s *scan) readBlob(k, v []byte) {
	var diffID digest.Digest
	blob, err := decodeDigest(k)
	if err == nil {
		diffID, err = decodeDigest(v)
	}
	if err == nil {
		s.c.Blobs[blob] = diffID
		return
	}
	s.add(Problem{
		Code: ProblemBlobUnreadable, Text: fmt.Sprintf("which layer is in a blob can't be read (key %x): %v", k, err),
		Fixes: []Fix{deleteFix(bucketBlobs, bytes.Clone(k))},
	})
}

func (s *scan) unreadableIndex(bucket, k []byte) {
	s.add(Problem{
		Code: ProblemIndexUnreadable, Key: string(bucket), Text: fmt.Sprintf("the index %s has a key %x that makes no sense", bucket, k),
		Fixes: []Fix{deleteFix(bucket, bytes.Clone(k))},
	})
}

func decodeDigest(b []byte) (digest.Digest, error) {
	d := &decoder{b: b}
	text := digest.Digest(d.string())
	if err := d.finish(); err != nil {
		return "", err
	}
	return text, text.Validate()
}
