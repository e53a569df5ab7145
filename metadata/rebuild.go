// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Saved is what the log of a store says of it.
type Saved struct {
	Snapshots map[uint64]Snapshot // without the names of their parents
	Layers    map[uint64]Layer
	Blobs     map[digest.Digest]digest.Digest // blob → diffID
	// Reserved is the mark that all numbers are below.
	Reserved uint64
	// Lost says, a sentence each, what is missing in the log. Empty: it is all that the
	// store had at its last transaction.
	Lost []string

	last     uint64 // transaction
	complete bool   // up to that
}

// ReadSaved reads the log of the store at path.
//
// ErrNotFound: there is none. ErrDataLoss: nothing in it can be read.
func ReadSaved(path string) (*Saved, error) {
	c, err := readLog(LogPath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist: %w", LogPath(path), errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return c.saved(), nil
}

func (c *logContents) saved() *Saved {
	s := &Saved{Snapshots: map[uint64]Snapshot{}, Layers: map[uint64]Layer{}, Blobs: map[digest.Digest]digest.Digest{}, Reserved: 1, last: c.last, complete: c.complete()}
	c.describeLosses(s)
	for key, value := range c.entries[string(bucketSnapshots)] {
		n, ok := readNumber([]byte(key))
		if r, err := decodeRecord(value); err == nil && ok {
			s.Snapshots[n] = r.snapshot(n)
		} else {
			s.lose("the record of snapshot %x can't be read: %v", key, keyError(ok, err))
		}
	}
	for key, value := range c.entries[string(bucketLayers)] {
		n, ok := readNumber([]byte(key))
		if l, err := decodeLayer(n, value); err == nil && ok {
			s.Layers[n] = l
		} else {
			s.lose("the record of layer %x can't be read: %v", key, keyError(ok, err))
		}
	}
	for key, value := range c.entries[string(bucketBlobs)] {
		blob, err1 := decodeDigest([]byte(key))
		diffID, err2 := decodeDigest(value)
		if err1 == nil && err2 == nil { // others only cost a pull
			s.Blobs[blob] = diffID
		}
	}
	if v := c.entries[string(bucketMeta)][string(keyReserved)]; len(v) == 8 {
		s.Reserved = binary.BigEndian.Uint64(v)
	}
	return s
}

func (s *Saved) lose(format string, args ...any) {
	s.Lost = append(s.Lost, fmt.Sprintf(format, args...))
}

func (c *logContents) describeLosses(s *Saved) {
	if c.lost > 0 {
		s.lose("%d bytes of the log make no sense", c.lost)
	}
	if c.torn > 0 {
		s.lose("%d bytes at the end of the log make no sense: of a transaction that was not committed, or of the last that were", c.torn)
	}
	if c.gap {
		s.lose("transactions are missing in the log")
	}
	if c.stopped {
		s.lose("the log could not be written to at some time, and what happened from then on is not in it")
	}
}

func (r *record) snapshot(n uint64) Snapshot {
	s := Snapshot{Number: n, ParentNumber: r.parent, Layer: r.layer, Patch: r.patch, Usage: r.usage}
	s.Kind, s.Name, s.Labels, s.Created, s.Updated = r.kind, r.name, r.labels, r.created, r.updated
	return s
}

// Write makes a new store of what was saved, at path, where there is no file: what is at
// path is only complete when Write has returned. Indexes and references follow from the
// snapshots.
//
// ErrResourceExhausted: there is no space.
func (s *Saved) Write(path string) error {
	return s.write(path, func() (*os.File, error) {
		return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o600)
	})
}

// writePiece is how many entries are written in a transaction. bbolt splits pages when one
// is committed; until then they only grow, and each entry moves those behind it.
const writePiece = 4000

// openNew opens a file that is empty, which bbolt closes. Nothing in it is synced.
func openNew(path string, file func() (*os.File, error)) (*bolt.DB, error) {
	o := defaultOptions()
	o.bolt.NoSync = true
	o.bolt.OpenFile = func(string, int, os.FileMode) (*os.File, error) { return file() }
	db, err := openBolt(path, &o.bolt)
	if err != nil {
		return nil, openError(path, err)
	}
	db.AllocSize = growBy
	return db, nil
}

// write is Write to a file that is empty.
func (s *Saved) write(path string, file func() (*os.File, error)) (err error) {
	db, err := openNew(path, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := s.fill(path, db); err != nil {
		return err
	}
	return writeError(path, db.Sync())
}

// fill writes all that was saved, and syncs nothing.
func (s *Saved) fill(path string, db *bolt.DB) error {
	if err := createBuckets(path, db); err != nil {
		return err
	}
	for piece := range slices.Chunk(s.steps(), writePiece) {
		err := db.Update(func(btx *bolt.Tx) error {
			tx := &Tx{tx: btx}
			for _, step := range piece {
				if err := step(tx); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return writeError(path, err)
		}
	}
	return nil
}

// steps write all that was saved.
func (s *Saved) steps() (steps []func(tx *Tx) error) {
	for _, n := range slices.Sorted(maps.Keys(s.Layers)) {
		steps = append(steps, func(tx *Tx) error { return tx.restoreLayer(s.Layers[n]) })
	}
	for _, n := range slices.Sorted(maps.Keys(s.Snapshots)) {
		steps = append(steps, func(tx *Tx) error { return tx.restoreSnapshot(s.Snapshots[n]) })
	}
	for blob, diffID := range s.Blobs {
		steps = append(steps, func(tx *Tx) error { return tx.BindBlob(blob, diffID) })
	}
	return append(steps, func(tx *Tx) error { return tx.setReserved(s.Reserved) })
}

func (tx *Tx) restoreLayer(l Layer) error {
	if err := tx.put(bucketLayers, numberKey(l.Number), l.encode()); err != nil || l.DiffID == "" {
		return err
	}
	k, err := digestKey(l.DiffID)
	if err != nil || tx.bucket(bucketDiffIDs).Get(k) != nil {
		return err
	}
	return tx.put(bucketDiffIDs, k, numberKey(l.Number))
}

func (tx *Tx) restoreSnapshot(s Snapshot) error {
	if err := tx.insert(s.Number, s.record()); err != nil {
		return fmt.Errorf("snapshot %q: %w", s.Name, err)
	}
	for _, layer := range []uint64{s.Layer, s.Patch} {
		if layer == 0 {
			continue
		}
		if err := tx.put(bucketRefs, pair(layer, s.Number), nil); err != nil {
			return err
		}
	}
	return nil
}

func (s Snapshot) record() *record {
	return &record{
		name: s.Name, kind: s.Kind, parent: s.ParentNumber, layer: s.Layer, patch: s.Patch,
		usage: s.Usage, created: s.Created, updated: s.Updated, labels: s.Labels,
	}
}

// RenewLog makes the log of the store at path, which nobody has open, of what is in it,
// whatever the log said before.
func RenewLog(path string) error {
	ahead, err := logIsAhead(path)
	if ahead {
		err = stopLog(path)
	}
	if err != nil {
		return err
	}
	s, err := Open(path, MustExist())
	if err != nil {
		return err
	}
	s.log.mu.Lock()
	s.log.renewing = true
	s.log.mu.Unlock()
	s.log.renew()
	return errors.Join(s.LogError(), s.Close())
}

// logHasSnapshots says whether the log of a store that is not there has any snapshot.
func logHasSnapshots(path string) bool {
	c, err := readLog(LogPath(path))
	if err != nil {
		// A log that can't be read was a log of something.
		_, statErr := os.Stat(LogPath(path))
		return statErr == nil
	}
	return len(c.entries[string(bucketSnapshots)]) > 0
}
