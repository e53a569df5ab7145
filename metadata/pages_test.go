// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// A store with a page that makes no sense is refused, without a panic. What is not refused
// is what it was: the page was not in use.
func TestDamagedPagesAreRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "metadata.db")
	fill(t, path, 150)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, page := inspected(t, path), os.Getpagesize()
	refused := 0
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // what was not written is seen below
	for i := range 40 {              // what comes after is not in use yet
		for how, damage := range map[string]func(p []byte){
			"zeros":  func(p []byte) { clear(p) },
			"random": func(p []byte) { randomBytes(p, uint64(i)) },
			"other":  func(p []byte) { copy(p, good[(i+3)%20*page:][:page]) },
			"counts": func(p []byte) { p[10] += 7 },
		} {
			bad := slices.Clone(good[i*page:][:page])
			damage(bad)
			if _, err := f.WriteAt(bad, int64(i*page)); err != nil {
				t.Fatal(err)
			}
			s, err := Open(path)
			if errdefs.IsDataLoss(err) {
				refused++
				if _, err := Inspect(path); !errdefs.IsDataLoss(err) {
					t.Errorf("page %d, %s: Open refuses it, Inspect says %v", i, how, err)
				}
			} else if err == nil {
				err = errors.Join(s.Close(), sameContents(inspected(t, path), want))
			}
			if err != nil && !errdefs.IsDataLoss(err) {
				t.Errorf("page %d, %s: %v", i, how, err)
			}
			if _, err := f.WriteAt(good[i*page:][:page], int64(i*page)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if refused < 40 {
		t.Errorf("only %d damages were found", refused)
	}
}

func randomBytes(p []byte, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

// A file that is cut off anywhere is refused, or is empty.
func TestTruncatedFilesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	fill(t, path, 20)
	for _, size := range []int64{0, 1, 16, 4095, 4096, 5000, 8192, 12288, 20000} {
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); !errdefs.IsDataLoss(err) {
			t.Errorf("%d bytes: %v", size, err)
		}
		fillBack := filepath.Join(t.TempDir(), "metadata.db")
		fill(t, fillBack, 20)
		for _, p := range []string{path, LogPath(path)} {
			from := fillBack
			if p != path {
				from = LogPath(fillBack)
			}
			if err := os.Rename(from, p); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Pages that are damaged while the store is open make calls fail, and nothing hang.
func TestDamageWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	fill(t, path, 150)
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	junk := make([]byte, 60*os.Getpagesize())
	randomBytes(junk, 1)
	if _, err := f.WriteAt(junk, 2*int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.View(func(tx *Tx) error { _, err := tx.Get("k8s.io/3/nc"); return err }); !errdefs.IsDataLoss(err) {
		t.Errorf("reading: %v", err)
	}
	for i := range 3 {
		err := s.Update(context.Background(), func(tx *Tx) error {
			_, err := tx.Create(Create{Number: uint64(1000 + i), Kind: snapshots.KindActive, Key: "new"})
			return err
		})
		if !errdefs.IsDataLoss(err) {
			t.Errorf("writing: %v", err)
		}
	}
	if err := s.Close(); err != nil && !errdefs.IsDataLoss(err) {
		t.Errorf("close: %v", err)
	}
	if saved, err := ReadSaved(path); err != nil || len(saved.Lost) > 0 || len(saved.Snapshots) != 150 {
		t.Errorf("the log: %v, %+v", err, saved)
	}
}
