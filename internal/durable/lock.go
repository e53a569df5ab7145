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

// Acquire locks the file called name in the open directory dir, creating it
// with mode 0600, and writes into it who holds it. It does not wait.
//
// ErrUnavailable: another process holds it, and the message names it.
// ErrFailedPrecondition: there is something else than a regular file, or the
// file can't be opened.
func Acquire(dir *os.File, name string) (*Lock, error) {
	path := filepath.Join(dir.Name(), name)
	// Without O_NONBLOCK a fifo of that name would be waited at.
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := unix.Openat(int(dir.Fd()), name, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock file %s: %w (%w)", path, err, errdefs.ErrFailedPrecondition)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := take(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Lock{f: f}, nil
}

func take(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("lock file %s: %w (%w)", f.Name(), err, errdefs.ErrInternal)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("lock file %s is not a regular file, move it away: %w", f.Name(), errdefs.ErrFailedPrecondition)
	}
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%s is locked by %s: %w", f.Name(), holder(f), errdefs.ErrUnavailable)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w (%w)", f.Name(), err, errdefs.ErrFailedPrecondition)
	}
	if err := sign(f, st); err != nil {
		return fmt.Errorf("write lock file %s: %w", f.Name(), err)
	}
	return nil
}

// sign names this process in the lock file. A umask may have taken the owner's
// own permissions away, and the next start under that user could not open it.
func sign(f *os.File, st unix.Stat_t) error {
	if st.Mode&0o777 != 0o600 && int(st.Uid) == os.Geteuid() {
		if err := f.Chmod(0o600); err != nil {
			return err
		}
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	me := fmt.Sprintf("process %d (%s)\n", os.Getpid(), filepath.Base(os.Args[0]))
	_, err := f.WriteAt([]byte(me), 0)
	return err
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
