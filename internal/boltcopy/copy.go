// SPDX-License-Identifier: Apache-2.0

package boltcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const (
	// patience bounds how long a writer that never pauses is waited for.
	patience = 10 * time.Second
	// chunk is how many bytes are copied at a time.
	chunk = 1 << 20
	// maxBad is how often, a millisecond apart, both meta pages may make no sense.
	maxBad = 100
)

// Open returns one state of the bbolt file at path, in memory and read-only: the newest
// that was on disk at some moment of the call. The file is neither locked nor written to.
// Closing the DB gives the memory, which is as much as the file has in use, back.
//
// ErrNotFound: there is no file, or it is empty. ErrDataLoss: it is no bbolt file, or is
// cut off. ErrUnavailable: it is written to without a pause for ten seconds.
// ErrFailedPrecondition: it can't be opened.
func Open(ctx context.Context, path string) (_ *bolt.DB, err error) {
	from, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := memory()
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w (%w)", path, err, errdefs.ErrResourceExhausted)
	}
	if err := copyWhole(ctx, from, to); err != nil {
		return nil, errors.Join(fmt.Errorf("copy %s: %w", path, err), to.Close())
	}
	// bbolt closes the file also where it fails.
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		ReadOnly: true, Timeout: time.Second, NoStatistics: true,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return to, nil },
	})
	if err != nil {
		return nil, fmt.Errorf("open a copy of %s: %w (%w)", path, err, errdefs.ErrDataLoss)
	}
	return db, nil
}

func openFile(path string) (*os.File, error) {
	// Without O_NONBLOCK a fifo of that name would be waited at.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("%s does not exist: %w", path, errdefs.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w (%w)", path, err, errdefs.ErrFailedPrecondition)
	}
	f := os.NewFile(uintptr(fd), path)
	st, err := f.Stat()
	switch {
	case err != nil:
	case !st.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file: %w", path, errdefs.ErrFailedPrecondition)
	case st.Size() == 0:
		err = fmt.Errorf("%s is empty: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func memory() (*os.File, error) {
	fd, err := unix.MemfdCreate("bbolt-copy", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), "bbolt-copy"), nil
}

// copyWhole copies until nobody wrote a transaction meanwhile.
func copyWhole(ctx context.Context, from, to *os.File) error {
	buf := make([]byte, chunk)
	for end, bad := time.Now().Add(patience), 0; ; {
		whole, err := copyOnce(ctx, from, to, buf)
		if errors.Is(err, errNoMeta) {
			bad++
		}
		switch {
		case whole, err != nil && (!errors.Is(err, errNoMeta) || bad == maxBad):
			return err
		case time.Now().After(end):
			return fmt.Errorf("it is written to all the time, try again: %w", errdefs.ErrUnavailable)
		}
		time.Sleep(time.Millisecond)
	}
}

// copyOnce says whether the state that it copied was still the newest at the end.
func copyOnce(ctx context.Context, from, to *os.File, buf []byte) (whole bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	before, err := newest(from)
	if err != nil {
		return false, err
	}
	if err := copyPages(ctx, from, to, buf, before); err != nil {
		return false, err
	}
	after, err := newest(from)
	return err == nil && after.txid == before.txid, err
}

// copyPages copies what the state has in use. What it does not, such as the room that
// the file grew by, stays behind.
func copyPages(ctx context.Context, from, to *os.File, buf []byte, m meta) error {
	size := int64(m.pages) * int64(m.pageSize)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := from.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && (!errors.Is(err, io.EOF) || n == 0) {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("it is cut off at %d of %d bytes: %w", at, size, errdefs.ErrDataLoss)
			}
			return fmt.Errorf("%w (%w)", err, errdefs.ErrDataLoss)
		}
		if _, err := to.WriteAt(buf[:n], at); err != nil {
			return fmt.Errorf("%w (%w)", err, errdefs.ErrResourceExhausted)
		}
		at += int64(n)
	}
	return nil
}
