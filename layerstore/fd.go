// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

func openDir(dirfd int, name string) (*os.File, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(dirfd, name, dirFlags, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// mkdir makes a directory with exactly the mode given, whatever the umask.
func mkdir(dir *os.File, name string, mode uint32) error {
	if err := unix.Mkdirat(int(dir.Fd()), name, mode); err != nil {
		return fmt.Errorf("make directory %s: %w", filepath.Join(dir.Name(), name), err)
	}
	return unix.Fchmodat(int(dir.Fd()), name, mode, 0)
}

// rename moves a directory, and fails with EEXIST rather than replace one.
func rename(from *os.File, name string, to *os.File, newName string) error {
	err := unix.Renameat2(int(from.Fd()), name, int(to.Fd()), newName, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// A file system that can't promise it. Numbers are never reused, so
		// there is nothing to replace but an empty directory.
		err = unix.Renameat(int(from.Fd()), name, int(to.Fd()), newName)
	}
	if err != nil {
		return fmt.Errorf("move %s/%s to %s/%s: %w", from.Name(), name, to.Name(), newName, err)
	}
	return nil
}

// exists says whether rel, a path of this package's making, is there.
func exists(dir *os.File, rel string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), rel, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// maxOpenPath keeps the path of one openat2 call below PATH_MAX.
const maxOpenPath = 4000

// openBeneath opens the directory rel below root, which containers may be
// changing at this moment: no link is followed and no mount is entered.
// rel may be longer than PATH_MAX.
func openBeneath(root *os.File, rel string) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   dirFlags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	dir, owned := root, false
	for {
		part, rest := splitPath(rel)
		fd, err := retry(func() (int, error) { return unix.Openat2(int(dir.Fd()), part, how) })
		if errors.Is(err, unix.ENOSYS) {
			fd, err = openInMount(dir, part)
		}
		if owned {
			err = errors.Join(err, dir.Close())
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: rel, Err: err}
		}
		dir, owned, rel = os.NewFile(uintptr(fd), part), true, rest
		if rest == "" {
			return dir, nil
		}
	}
}

func splitPath(rel string) (part, rest string) {
	if len(rel) <= maxOpenPath {
		return rel, ""
	}
	i := strings.LastIndexByte(rel[:maxOpenPath], '/') // a name has at most 255 bytes
	return rel[:i], rel[i+1:]
}

// openByComponent is openat2 for kernels before 5.6, with less to say: it follows
// no link, and may enter mounts.
func openByComponent(dir *os.File, rel string) (fd int, err error) {
	at, owned := int(dir.Fd()), false
	for part := range strings.SplitSeq(rel, "/") {
		fd, err = retry(func() (int, error) { return unix.Openat(at, part, dirFlags, 0) })
		if owned {
			err = errors.Join(err, unix.Close(at))
		}
		if err != nil {
			return -1, err
		}
		at, owned = fd, true
	}
	return fd, nil
}

func retry(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
}

// classify gives an error of the file system the class that its reader can act
// on. One that has a class keeps it.
func classify(err error) error {
	var class error
	switch {
	case err == nil, errdefs.IsUnavailable(err), errdefs.IsResourceExhausted(err), errdefs.IsFailedPrecondition(err), errdefs.IsDataLoss(err),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		class = errdefs.ErrResourceExhausted
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTDIR):
		class = errdefs.ErrFailedPrecondition
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESTALE):
		class = errdefs.ErrUnavailable // not NotFound: that would mean a snapshot
	default:
		class = errdefs.ErrInternal
	}
	return fmt.Errorf("%w (%w)", err, class)
}
