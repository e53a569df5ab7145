// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// diffDirWindow is how many directories in a row stay open on the way down. A
// container can nest directories much deeper than a process may open files.
const diffDirWindow = 64

// diffDir is a directory of the tree that is read. Its descriptor may be closed
// while the walk is far below it; it is found again through its parent, and must
// then be the same directory.
type diffDir struct {
	parent *diffDir // nil for a root
	name   string   // below parent; more than one component for a redirect
	path   string   // in the layer, for messages
	proc   int      // /proc/self/fd
	fd     int      // -1 when closed
	dev    uint64
	ino    uint64
	// stack is what the directory is one of where it is the layers' below, not mounted:
	// they are looked into by paths.
	stack *stack
}

func newDiffDir(parent *diffDir, name string, e *diffEntry) *diffDir {
	dir := &diffDir{parent: parent, name: name, path: e.path, proc: e.proc, fd: e.takeFD(), dev: e.st.Dev, ino: e.st.Ino}
	if parent != nil {
		dir.stack = parent.stack
	}
	return dir
}

// rest closes the directory that has fallen out of the window.
func (dir *diffDir) rest() error {
	far := dir
	for range diffDirWindow {
		if far.parent == nil {
			return nil
		}
		far = far.parent
	}
	if far.parent == nil {
		return nil
	}
	return far.close()
}

func (dir *diffDir) close() error {
	if dir.fd < 0 {
		return nil
	}
	fd := dir.fd
	dir.fd = -1
	return unix.Close(fd)
}

// open returns the descriptor, which stays the directory's own. When it has to
// be opened again, half a window of directories above it are opened with it, for
// the walk is on its way up.
func (dir *diffDir) open() (int, error) {
	var closed []*diffDir
	top := dir
	for ; top.fd < 0; top = top.parent {
		closed = append(closed, top)
	}
	for _, next := range slices.Backward(closed) {
		if err := next.reopen(); err != nil {
			return -1, err
		}
	}
	for i := diffDirWindow / 2; i < len(closed); i++ {
		if err := closed[i].close(); err != nil {
			return -1, err
		}
	}
	return dir.fd, nil
}

func (dir *diffDir) reopen() error {
	fd, err := openIn(dir.parent.fd, dir.name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return errChanged(dir.path)
	}
	if err != nil {
		return diffError(dir.path, "open again", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.Join(diffError(dir.path, "stat", err), unix.Close(fd))
	}
	if st.Dev != dir.dev || st.Ino != dir.ino {
		return errors.Join(errChanged(dir.path), unix.Close(fd))
	}
	dir.fd = fd
	return nil
}

// names lists the directory, sorted.
func (dir *diffDir) names() ([]string, error) {
	fd, err := dir.open()
	if err != nil {
		return nil, err
	}
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := retryInt(func() (int, error) { return unix.ReadDirent(fd, buf) })
		if err != nil {
			return nil, diffError(dir.path, "list", err)
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	slices.Sort(names)
	return names, nil
}

// openIn opens a path below a directory. It follows no link and enters no mount,
// so that nobody who can write to the tree can lead it elsewhere.
func openIn(dirfd int, path string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	if path == ".." || strings.ContainsRune(path, '/') {
		// Not for a plain name: the kernel would take one that is moved away
		// meanwhile for an escape.
		how.Resolve |= unix.RESOLVE_BENEATH
	}
	return retryInt(func() (int, error) { return unix.Openat2(dirfd, path, &how) })
}

func retryInt(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// diffError adds the path, what was tried and the errdefs class to the error of a
// system call.
func diffError(path, what string, err error) error {
	if errors.Is(err, unix.EXDEV) {
		return unsure(path, "has something mounted over it")
	}
	return fmt.Errorf("%s %q: %w: %w", what, path, err, diffClass(err))
}

func diffClass(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return errdefs.ErrNotFound
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errdefs.ErrPermissionDenied
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		return errdefs.ErrResourceExhausted
	case errors.Is(err, unix.EIO), errors.Is(err, unix.ESTALE):
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrInternal
}

func errChanged(path string) error {
	return fmt.Errorf("%q changed while it was read, stop what writes to it and try again: %w", path, errdefs.ErrUnavailable)
}
