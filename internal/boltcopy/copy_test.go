// SPDX-License-Identifier: Apache-2.0

package boltcopy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/internal/boltcopy"
)

var bucket = []byte("b")

// Every transaction writes its number into every key it touches, moves values around,
// and keeps the count of keys in one of them. A copy shows one transaction's work or
// another's, and never parts of two.
func TestCopyOfAFileBeingWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	write(t, db, 1)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := uint64(2); ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := update(db, i); err != nil {
				done <- err
				return
			}
			time.Sleep(time.Duration(i%5) * time.Millisecond)
		}
	}()
	last := uint64(0)
	for i := 0; i < 40 || last < 10; i++ {
		last = max(last, checkCopy(t, path, last))
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, db *bolt.DB, generation uint64) {
	t.Helper()
	if err := update(db, generation); err != nil {
		t.Fatal(err)
	}
}

// update gives all keys the generation as their value, with a length that changes, so
// that pages are freed and used again.
func update(db *bolt.DB, generation uint64) error {
	return db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		for k := range uint64(300) {
			v := binary.BigEndian.AppendUint64(nil, generation)
			v = append(v, make([]byte, (generation*31+k*17)%900)...)
			if err := b.Put(binary.BigEndian.AppendUint64(nil, k), v); err != nil {
				return err
			}
		}
		return nil
	})
}

func checkCopy(t *testing.T, path string, atLeast uint64) uint64 {
	t.Helper()
	db, err := boltcopy.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	seen := uint64(0)
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		count := 0
		err := tx.Bucket(bucket).ForEach(func(k, v []byte) error {
			generation := binary.BigEndian.Uint64(v)
			if count++; seen != 0 && seen != generation {
				return fmt.Errorf("key %x is of transaction %d and others of %d", k, generation, seen)
			}
			seen = generation
			return nil
		})
		if err == nil && count != 300 {
			err = fmt.Errorf("%d keys", count)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < atLeast {
		t.Errorf("a copy shows transaction %d after one that showed %d", seen, atLeast)
	}
	if err := db.Update(func(*bolt.Tx) error { return nil }); err == nil {
		t.Error("a copy can be written to")
	}
	return seen
}

// A writer that never pauses ends in an error, soon after the caller gives up.
func TestCopyEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, db, 1)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := boltcopy.Open(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCopyOfWhatIsNoDatabase(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	whole := filepath.Join(dir, "whole")
	db, err := bolt.Open(whole, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, db, 1)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path string
		is   func(error) bool
	}{
		"absent":  {filepath.Join(dir, "none"), errdefs.IsNotFound},
		"empty":   {put("empty", nil), errdefs.IsNotFound},
		"foreign": {put("foreign", make([]byte, 64<<10)), errdefs.IsDataLoss},
		"cut off": {put("cut", data[:9000]), errdefs.IsDataLoss},
		"no file": {dir, errdefs.IsFailedPrecondition},
	} {
		if _, err := boltcopy.Open(context.Background(), c.path); !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever a file holds, opening it is an error or a database, and no crash.
func TestCopyOfDamage(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole")
	db, err := bolt.Open(whole, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, db, 1)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "damaged")
	rapid.Check(t, func(t *rapid.T) {
		bad := append([]byte{}, data...)
		// One of the two meta pages stays as it is: without both it takes patience.
		at := rapid.IntRange(4096, len(bad)-1).Draw(t, "at")
		bad[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := boltcopy.Open(context.Background(), path)
		if err != nil {
			return
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
