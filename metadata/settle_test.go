// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/faultfs"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// The last sync of a transaction fails. Once: the call succeeds. For longer: it is in
// doubt, nobody writes on top of it, and it counts as soon as a sync works again.
func TestLastSyncFails(t *testing.T) {
	for name, last := range map[string]int{"once": 3, "for longer": 0} {
		t.Run(name, func(t *testing.T) {
			testutil.RequireRoot(t)
			faults := faultfs.New(t, testutil.Tmpfs(t))
			s, err := Open(filepath.Join(faults.Dir(), "metadata.db"))
			if err != nil {
				t.Fatal(err)
			}
			put := func(n int) error { return s.Update(context.Background(), putNumber(n)) }
			if err := put(1); err != nil {
				t.Fatal(err)
			}
			// Before come those of the log, and of the data.
			faults.Set(faultfs.Rule{Ops: []string{faultfs.Fsync}, First: 3, Last: last, Errno: syscall.EIO})
			err = put(2)
			if last != 0 && err != nil || last == 0 && (!errors.Is(err, ErrInDoubt) || !errdefs.IsInternal(err)) {
				t.Errorf("got %v", err)
			}
			checkNumbers(t, s, 1, 2)
			if last == 0 {
				if err := put(3); !errdefs.IsInternal(err) || errors.Is(err, ErrInDoubt) {
					t.Errorf("on top of it: %v", err)
				}
				checkNumbers(t, s, 1, 2)
			}
			faults.Set(faultfs.Rule{})
			if err := put(4); err != nil {
				t.Error(err)
			}
			checkNumbers(t, reopenCopy(t, s), 1, 2, 4)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// The sync of the data fails: nothing has happened.
func TestFirstSyncFails(t *testing.T) {
	testutil.RequireRoot(t)
	faults := faultfs.New(t, testutil.Tmpfs(t))
	s, err := Open(filepath.Join(faults.Dir(), "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	// Before comes that of the log.
	faults.Set(faultfs.Rule{Ops: []string{faultfs.Fsync}, First: 2, Last: 2, Errno: syscall.ENOSPC})
	if err := s.Update(context.Background(), putNumber(1)); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
	checkNumbers(t, s)
	if err := s.Update(context.Background(), putNumber(2)); err != nil {
		t.Error(err)
	}
	checkNumbers(t, s, 2)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// checkNumbers looks for what putNumber put.
func checkNumbers(t *testing.T, s *Store, want ...int) {
	t.Helper()
	err := s.View(func(tx *Tx) error {
		found := 0
		c := tx.bucket(bucketBlobs).Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if found >= len(want) || string(k) != string(u64(uint64(want[found]))) {
				t.Errorf("key %x is there, want %v", k, want)
			}
			found++
		}
		if found != len(want) {
			t.Errorf("%d keys are there, want %v", found, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
