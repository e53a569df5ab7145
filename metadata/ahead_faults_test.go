// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/faultfs"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// The log fails while it is ahead. Once, or until metadata.db stands on its own: the call
// succeeds, and a power cut finds everything. For longer: it is in doubt.
func TestLogFailsWhileAhead(t *testing.T) {
	for _, test := range []struct {
		op          string
		first, last int
	}{
		{faultfs.Fsync, 1, 1}, {faultfs.Fsync, 1, 0}, {faultfs.Write, 1, 1}, {faultfs.Write, 1, 0}, {faultfs.Write, 2, 2}, {faultfs.Write, 2, 0},
	} {
		t.Run(fmt.Sprintf("%s %d to %d", test.op, test.first, test.last), func(t *testing.T) {
			testutil.RequireRoot(t)
			faults := faultfs.New(t, testutil.Tmpfs(t))
			s := openAhead(t, faults.Dir())
			faults.Set(faultfs.Rule{Ops: []string{test.op}, First: test.first, Last: test.last, Errno: syscall.EIO})
			_, err := create(t, s, snapshots.KindActive, "a", "", nil)
			keys := []string{"first"}
			switch {
			case err == nil:
				keys = append(keys, "a")
			case !errdefs.IsInternal(err):
				t.Errorf("got %v", err)
			case errors.Is(err, ErrInDoubt):
				if _, err := create(t, s, snapshots.KindActive, "b", "", nil); !errdefs.IsInternal(err) {
					t.Errorf("on top of it: %v", err)
				}
			}
			if test.last != 0 && test.op == faultfs.Fsync && err != nil {
				t.Errorf("failed once: %v", err)
			}
			wantKeys(t, s, keys...)
			faults.Set(faultfs.Rule{})
			createAll(t, s, "c")
			wantKeys(t, s, append(keys, "c")...)
			wantKeys(t, reopenCopy(t, s), append(keys, "c")...)
			s.log.mu.Lock()
			s.log.retry = s.log.retry.Add(-2 * logRetry)
			s.log.mu.Unlock()
			createAll(t, s, "d")
			s.log.renewal.Wait()
			createAll(t, s, "e", "f")
			if err := s.LogError(); err != nil || !s.log.isAhead() {
				t.Errorf("ahead again: %v, %v", s.log.isAhead(), err)
			}
			wantKeys(t, reopenCopy(t, s), append(keys, "c", "d", "e", "f")...)
			closeStore(t, s)
		})
	}
}

// A log that is made anew while it is ahead takes the place of the old one, or, if that
// can't be known for sure, neither is believed.
func TestRenewalWhileAhead(t *testing.T) {
	testutil.RequireRoot(t)
	faults := faultfs.New(t, testutil.Tmpfs(t))
	s := openAhead(t, faults.Dir())
	renew := func() {
		s.log.mu.Lock()
		s.log.limit = -1 << 40
		s.log.retry = s.log.retry.Add(-2 * logRetry)
		s.log.mu.Unlock()
	}
	for i, op := range []string{"", faultfs.Create, faultfs.Rename, faultfs.FsyncDir} {
		if op != "" {
			faults.Set(faultfs.Rule{Ops: []string{op}, First: 1, Errno: syscall.EIO})
		}
		renew()
		createAll(t, s, fmt.Sprintf("during %d", i))
		s.log.renewal.Wait()
		faults.Set(faultfs.Rule{})
		createAll(t, s, fmt.Sprintf("after %d", i))
		if ahead := s.log.isAhead(); ahead != (op != faultfs.FsyncDir) {
			t.Errorf("%q failed: the log is ahead: %v", op, ahead)
		}
		if got := len(dump(t, reopenCopy(t, s))); got != 1+2*(i+1) {
			t.Errorf("%q failed: %d snapshots are there", op, got)
		}
	}
	closeStore(t, s)
}

// A transaction that failed altogether is not in a log that was being made meanwhile.
func TestRenewalForgetsWhatFailed(t *testing.T) {
	testutil.RequireRoot(t)
	faults := faultfs.New(t, testutil.Tmpfs(t))
	s := openAhead(t, faults.Dir())
	reserve(t, s)
	s.log.renewing = true
	f, last, end, err := s.log.writeBase()
	if err != nil {
		t.Fatal(err)
	}
	faults.Set(faultfs.Rule{Ops: []string{faultfs.Write, faultfs.Fsync}, First: 1, Errno: syscall.EIO})
	if _, err := create(t, s, snapshots.KindActive, "failed", "", nil); !errors.Is(err, ErrInDoubt) {
		t.Errorf("got %v", err)
	}
	faults.Set(faultfs.Rule{})
	createAll(t, s, "later")
	s.log.mu.Lock()
	err = s.log.replace(f, last, end)
	s.log.renewing, s.log.tail = false, nil
	s.log.mu.Unlock()
	if err := errors.Join(err, s.LogError(), sameSaved(s.Path(), s)); err != nil {
		t.Error(err)
	}
	wantKeys(t, s, "first", "later")
	closeStore(t, s)
}
