// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// On a full disk there is room for some more transactions, then they fail with the class
// that says why, and nothing of what was there is lost. Removing needs no room.
func TestFullDiskLosesNothing(t *testing.T) {
	for fstype, size := range map[string]int{"ext4": 64, "xfs": 300} {
		t.Run(fstype, func(t *testing.T) {
			testutil.RequireRoot(t)
			var args []string
			if fstype == "ext4" {
				args = []string{"-q", "-m", "0"}
			}
			dir := testutil.LoopFSInMemory(t, fstype, size, args...)
			s, err := Open(filepath.Join(dir, "metadata.db"))
			if err != nil {
				t.Fatal(err)
			}
			ballast := testutil.NewBallast(t, dir)
			ballast.Leave(0)
			made := createUntilFull(t, s)
			if made < 100 {
				t.Errorf("only %d snapshots found room", made)
			}
			checkKeys(t, s, 0, made)
			checkKeys(t, reopenCopy(t, s), 0, made)
			for i := range made / 2 {
				removeKey(t, s, i)
			}
			checkKeys(t, s, made/2, made)
			ballast.Drop()
			for i := range made / 2 {
				if err := createView(s, i); err != nil {
					t.Fatal(err)
				}
			}
			checkKeys(t, s, 0, made)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			checkKeys(t, reopenCopy(t, s), 0, made)
		})
	}
}

// createView makes a snapshot with labels of several pages.
func createView(s *Store, i int) error {
	n, err := s.Reserve(context.Background())
	if err != nil {
		return err
	}
	return s.Update(context.Background(), func(tx *Tx) error {
		_, err := tx.Create(Create{Number: n, Kind: snapshots.KindView, Key: viewKey(i), Labels: map[string]string{"l": strings.Repeat("x", 4000)}})
		return err
	})
}

func viewKey(i int) string { return fmt.Sprintf("view-%d", i) }

func createUntilFull(t *testing.T, s *Store) (made int) {
	t.Helper()
	for ; made < 5000; made++ {
		err := createView(s, made)
		if err == nil {
			continue
		}
		if !errdefs.IsResourceExhausted(err) {
			t.Fatal(err)
		}
		return made
	}
	t.Fatal("the disk was not full")
	return made
}

func removeKey(t *testing.T, s *Store, i int) {
	t.Helper()
	err := s.Update(context.Background(), func(tx *Tx) error {
		_, err := tx.Remove(viewKey(i))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkKeys makes sure that just the snapshots from..to-1 are there.
func checkKeys(t *testing.T, s *Store, from, to int) {
	t.Helper()
	seen := 0
	err := s.Walk(context.Background(), func(context.Context, Snapshot) error { seen++; return nil })
	if err != nil || seen != to-from {
		t.Errorf("there are %d snapshots (%v), want %d", seen, err, to-from)
	}
	err = s.View(func(tx *Tx) error {
		for i := from; i < to; i++ {
			if _, err := tx.Get(viewKey(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
