// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// lockPoll is how often somebody else's lock is looked at, as bbolt does.
const lockPoll = 50 * time.Millisecond

// lockAhead takes bbolt's lock of a store whose log is ahead, shared for those who only
// look: nobody has it open then. It returns nil where the log is not ahead, or there is no
// metadata.db.
//
// ErrUnavailable: another process has it open, or makes metadata.db of the log.
func lockAhead(path string, shared bool, timeout time.Duration) (lock *os.File, err error) {
	for end := time.Now().Add(timeout); ; time.Sleep(lockPoll) {
		ahead, err := logIsAhead(path)
		if !ahead || err != nil {
			return nil, err
		}
		lock, err := tryLock(path, shared)
		if lock != nil || !errdefs.IsUnavailable(err) || time.Now().After(end) {
			return lock, err
		}
	}
}

// lockLog keeps those who look at a store from taking it for one that somebody has open,
// while metadata.db is made of its log. It returns nil where there is none.
func lockLog(path string, timeout time.Duration) (*os.File, error) {
	for end := time.Now().Add(timeout); ; time.Sleep(lockPoll) {
		lock, err := tryLock(LogPath(path), false)
		if !errdefs.IsUnavailable(err) || time.Now().After(end) {
			return lock, err
		}
	}
}

// tryLock takes the lock of a file, unless there is none.
//
// ErrUnavailable: somebody has it.
func tryLock(path string, shared bool) (*os.File, error) {
	flags, how := os.O_RDWR, unix.LOCK_EX
	if shared {
		flags, how = os.O_RDONLY, unix.LOCK_SH
	}
	f, err := os.OpenFile(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	switch {
	case err == nil && sameFile(f, path):
		return f, nil
	case err == nil, errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EINTR):
		err = fmt.Errorf("%s is in use by another process: %w", path, errdefs.ErrUnavailable)
	default:
		err = fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, errors.Join(err, f.Close())
}

// isRecovering says whether somebody makes the store at path of its log at this moment.
func isRecovering(path string) (bool, error) {
	lock, err := tryLock(LogPath(path), true)
	if lock == nil {
		return errdefs.IsUnavailable(err), nil
	}
	return false, errors.Join(err, lock.Close())
}

// sameFile says whether f is still what is at path: who waited for a lock may have waited
// for that of a file that was replaced.
func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// logIsAhead says whether the log of the store at path is to be believed instead of
// metadata.db. One without a header that can be read says nothing.
func logIsAhead(path string) (bool, error) {
	state, err := logState(path)
	if errors.Is(err, fs.ErrNotExist) || errdefs.IsDataLoss(err) {
		return false, nil
	}
	return state == stateAhead, err
}

// logState reads the header of the log of the store at path.
//
// ErrDataLoss: it makes no sense.
func logState(path string) (state byte, err error) {
	f, err := os.OpenFile(LogPath(path), os.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	state, _, err = readHeader(f)
	return state, err
}

// stopLog has the log of a store no longer be ahead, without anything else being done:
// metadata.db says all.
func stopLog(path string) (err error) {
	f, err := os.OpenFile(LogPath(path), os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, salt, err := readHeader(f)
	if err != nil {
		return err
	}
	return writeHeader(f, stateStopped, salt)
}

func readHeader(f *os.File) (state byte, salt uint64, err error) {
	b := make([]byte, logHeader)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, err
	}
	return decodeHeader(b[:n])
}

func writeHeader(f *os.File, state byte, salt uint64) error {
	if _, err := f.WriteAt(encodeHeader(state, salt), 0); err != nil {
		return err
	}
	return f.Sync()
}

func decodeFormat(path string, b []byte) (f Format, err error) {
	if err := json.Unmarshal(b, &f); err != nil {
		return f, damaged(path, err)
	}
	return f, nil
}

// mark writes down whether the log may be ahead.
func (tx *Tx) mark(ahead bool) error {
	f, err := decodeFormat("the format", tx.bucket(bucketMeta).Get(keyFormat))
	if err != nil || slices.Contains(f.Incompatible, featureAhead) == ahead {
		return err
	}
	f.Incompatible = slices.DeleteFunc(f.Incompatible, func(s string) bool { return s == featureAhead })
	if ahead {
		f.Incompatible = append(f.Incompatible, featureAhead)
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return tx.put(bucketMeta, keyFormat, b)
}

// unmark is mark(false) in a transaction of its own.
func (s *Store) unmark() error {
	return s.Update(context.Background(), func(tx *Tx) error { return tx.mark(false) })
}

func (s *Store) loadMark() error {
	return s.View(func(tx *Tx) error {
		f, err := decodeFormat(s.path, tx.bucket(bucketMeta).Get(keyFormat))
		s.writers.marked = slices.Contains(f.Incompatible, featureAhead)
		return err
	})
}
