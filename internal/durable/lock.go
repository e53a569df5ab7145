// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Lock is a file that this process holds an exclusive flock on. The kernel
// gives the lock back when the process ends, however it ends.
type Lock struct {
	f *os.File
}

// maxHolder bounds what is read from a lock file that somebody else wrote.
const maxHolder = 512

// Acquire locks the file at path, creating it with mode 0600, and writes into
// it who holds it. It does not wait: ErrUnavailable names the holder.
func Acquire(path string) (_ *Lock, err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s is locked by %s: %w", path, holder(f), errdefs.ErrUnavailable)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	me := fmt.Sprintf("pid %d (%s)\n", os.Getpid(), filepath.Base(os.Args[0]))
	if err := f.Truncate(0); err != nil {
		return nil, fmt.Errorf("write lock %s: %w", path, err)
	}
	if _, err := f.WriteAt([]byte(me), 0); err != nil {
		return nil, fmt.Errorf("write lock %s: %w", path, err)
	}
	return &Lock{f: f}, nil
}

// holder reads who wrote the lock file. The text is a hint for people only.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxHolder))
	who := strings.TrimSpace(string(b))
	if err != nil || who == "" {
		return "another process"
	}
	return who
}

// Release gives the lock back. It says so to the kernel: a child that was
// forked a moment ago and has not reached its exec still holds the descriptor.
// The file stays: removing it would let two processes lock two different files
// of the same name.
func (l *Lock) Release() error {
	return errors.Join(unix.Flock(int(l.f.Fd()), unix.LOCK_UN), l.f.Close())
}
