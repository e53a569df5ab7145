// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// diffEntry is a file, held by a descriptor: whatever happens to its name, what
// was looked at is what is read.
type diffEntry struct {
	path   string // in the layer, for messages and entries
	proc   int    // /proc/self/fd
	fd     int
	st     unix.Stat_t
	opened bool // fd can be read from; before, and for special files, it is O_PATH
	xattrs map[string]string
	marks  diffMarks
	below  bool // it is written from the layers below
	// override is what an ordinary user's files say of themselves.
	override *override
}

// pin looks name up in a directory. It returns nil when there is no such file, or
// no such directory on the way to it: a redirect leads through no link.
//
// O_PATH comes first, since to open a file that is not known yet can hang (a
// fifo) or do things (a device).
func (dir *diffDir) pin(name, path string) (*diffEntry, error) {
	if dir == nil {
		return nil, nil
	}
	if dir.stack != nil {
		return dir.stack.pin(dir.proc, path)
	}
	dirfd, err := dir.open()
	if err != nil {
		return nil, err
	}
	fd, err := openIn(dirfd, name, unix.O_PATH)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil, nil
	}
	if err != nil {
		return nil, diffError(path, "open", err)
	}
	e := &diffEntry{path: path, fd: fd, proc: dir.proc}
	if err := unix.Fstat(fd, &e.st); err != nil {
		return nil, errors.Join(diffError(path, "stat", err), e.close())
	}
	return e, nil
}

func (e *diffEntry) close() error {
	if e == nil || e.fd < 0 {
		return nil
	}
	return unix.Close(e.takeFD())
}

func (e *diffEntry) takeFD() int {
	fd := e.fd
	e.fd = -1
	return fd
}

func (e *diffEntry) kind() uint32    { return e.st.Mode & unix.S_IFMT }
func (e *diffEntry) isRegular() bool { return e.kind() == unix.S_IFREG }
func (e *diffEntry) isDir() bool     { return e != nil && e.kind() == unix.S_IFDIR }

// open makes a regular file or a directory readable and is a no-op for the rest.
// It stays the file that was looked at, so what is known of it stays true.
func (e *diffEntry) open() error {
	if e.opened || (!e.isRegular() && !e.isDir()) {
		return nil
	}
	fd, err := e.reopen()
	if err != nil {
		return diffError(e.path, "open", err)
	}
	if err := unix.Close(e.takeFD()); err != nil {
		return errors.Join(diffError(e.path, "close", err), unix.Close(fd))
	}
	e.fd, e.opened = fd, true
	return nil
}

func (e *diffEntry) reopen() (int, error) {
	if e.isDir() {
		return openIn(e.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	}
	return retryInt(func() (int, error) {
		return unix.Openat(e.proc, strconv.Itoa(e.fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
}

// procPath is a path of the very file that the descriptor stands for.
func (e *diffEntry) procPath() string { return "/proc/self/fd/" + strconv.Itoa(e.fd) }

func (e *diffEntry) readlink() (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := retryInt(func() (int, error) { return unix.Readlinkat(e.fd, "", buf) })
	if err != nil {
		return "", diffError(e.path, "read the link", err)
	}
	return string(buf[:n]), nil
}

// readAt fills b from an offset, or returns fewer bytes at the end of the file.
func (e *diffEntry) readAt(b []byte, offset int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := retryInt(func() (int, error) { return unix.Pread(e.fd, b[done:], offset+int64(done)) })
		if err != nil {
			return done, diffError(e.path, "read", err)
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

func closeEntries(err error, entries ...*diffEntry) error {
	for _, e := range entries {
		if closeErr := e.close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("close %q: %w", e.path, closeErr))
		}
	}
	return err
}
