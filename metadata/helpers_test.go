// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
)

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// reopenCopy opens what is on disk now, as after a crash: without the store having been
// closed. Where the log is ahead, metadata.db may be anything.
func reopenCopy(t testing.TB, s *Store) *Store {
	t.Helper()
	path := crashed(t, s)
	c, err := Open(path, aheadFrom(s.writers.aheadAfter))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close copy: %v", err)
		}
	})
	return c
}

// crashed copies what a power cut leaves of an open store.
func crashed(t testing.TB, s *Store) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "copy.db")
	db, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(LogPath(s.Path()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err == nil {
		err = os.WriteFile(LogPath(path), log, 0o600)
	} else {
		err = nil
	}
	if s.log.isAhead() {
		for i := 2 * os.Getpagesize(); i < len(db); i++ {
			db[i] ^= 0x55
		}
	}
	if err := errors.Join(err, os.WriteFile(path, db, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// aheadFrom has the log go ahead after n transactions.
func aheadFrom(n int) Option { return func(o *options) { o.aheadAfter = n } }

func reserve(t testing.TB, s *Store) uint64 {
	t.Helper()
	n, err := s.Reserve(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func create(t testing.TB, s *Store, kind snapshots.Kind, key, parent string, labels map[string]string) (Snapshot, error) {
	t.Helper()
	var made Snapshot
	n := reserve(t, s)
	err := s.Update(context.Background(), func(tx *Tx) (err error) {
		made, err = tx.Create(Create{Number: n, Kind: kind, Key: key, Parent: parent, Labels: labels})
		return err
	})
	return made, err
}

func commit(s *Store, c Commit) (Snapshot, error) {
	var done Snapshot
	err := s.Update(context.Background(), func(tx *Tx) error {
		active, err := tx.CheckCommit(c)
		if err != nil {
			return err
		}
		if c.Layer.Number == 0 {
			c.Layer.Number = active.Number
		}
		done, err = tx.Commit(c)
		return err
	})
	return done, err
}

func remove(s *Store, name string) (Removed, error) {
	var r Removed
	err := s.Update(context.Background(), func(tx *Tx) (err error) {
		r, err = tx.Remove(name)
		return err
	})
	return r, err
}

func get(s *Store, name string) (Snapshot, error) {
	var got Snapshot
	err := s.View(func(tx *Tx) (err error) {
		got, err = tx.Get(name)
		return err
	})
	return got, err
}

// populate makes
//
//	committed-1 ← committed-2 ← active-3, view-2
//	            ← active-2
//	active-1, view-1 (no parents)
func populate(t testing.TB, s *Store) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	add := func(kind snapshots.Kind, key, parent string) {
		t.Helper()
		_, err := create(t, s, kind, key, parent, nil)
		must(err)
	}
	add(snapshots.KindActive, "tmp-1", "")
	_, err := commit(s, Commit{Key: "tmp-1", Name: "committed-1", Usage: snapshots.Usage{Size: 1, Inodes: 2}})
	must(err)
	add(snapshots.KindActive, "tmp-2", "committed-1")
	_, err = commit(s, Commit{Key: "tmp-2", Name: "committed-2", Usage: snapshots.Usage{Size: 2, Inodes: 3}})
	must(err)
	add(snapshots.KindActive, "active-1", "")
	add(snapshots.KindActive, "active-2", "committed-1")
	add(snapshots.KindActive, "active-3", "committed-2")
	add(snapshots.KindView, "view-1", "")
	add(snapshots.KindView, "view-2", "committed-2")
}

// checkIndexes compares every index with the records it is made from.
func checkIndexes(t testing.TB, s *Store) {
	t.Helper()
	err := s.View(func(tx *Tx) error {
		names, children, refs, byref := 0, 0, 0, 0
		c := tx.bucket(bucketSnapshots).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			n := numberOf(k)
			r, err := decodeRecord(v)
			if err != nil {
				return err
			}
			names++
			if tx.number(r.name) != n {
				return fmt.Errorf("name %q does not lead to %d", r.name, n)
			}
			if r.parent != 0 {
				children++
				if tx.bucket(bucketChildren).Get(pair(r.parent, n)) == nil {
					return fmt.Errorf("%q is no child of its parent", r.name)
				}
			}
			for _, layer := range []uint64{r.layer, r.patch} {
				if layer == 0 {
					continue
				}
				refs++
				if tx.bucket(bucketRefs).Get(pair(layer, n)) == nil {
					return fmt.Errorf("%q does not refer to layer %d", r.name, layer)
				}
			}
			if r.labels[snapshots.LabelSnapshotRef] != "" {
				byref++
			}
		}
		for bucket, want := range map[string]int{"names": names, "children": children, "refs": refs, "byref": byref} {
			if got := tx.bucket([]byte(bucket)).Stats().KeyN; got != want {
				return fmt.Errorf("index %s has %d entries, want %d", bucket, got, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
