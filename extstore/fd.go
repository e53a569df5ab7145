// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC

// scope says how far the resolution of a path may go. No link is ever followed.
type scope uint64

const (
	// inStore may enter mounts: a layer can be a volume of its own.
	inStore scope = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS
	// inTree stays in the mount it begins in: a layer is one tree.
	inTree = inStore | unix.RESOLVE_NO_XDEV
)

// maxOpenPath keeps the path of one openat2 call below PATH_MAX.
const maxOpenPath = 4000

// openIn opens rel below dir. rel may be longer than PATH_MAX.
func openIn(dir *os.File, rel string, flags int, s scope) (*os.File, error) {
	at, owned := dir, false
	for {
		part, rest := splitPath(rel)
		how := &unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: uint64(s)}
		if rest != "" {
			how.Flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
		}
		fd, err := retry(func() (int, error) { return unix.Openat2(int(at.Fd()), part, how) })
		if errors.Is(err, unix.ENOSYS) { // before Linux 5.6
			fd, err = openByComponent(at, part, int(how.Flags))
		}
		if owned {
			err = errors.Join(err, at.Close())
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: rel, Err: err}
		}
		at, owned, rel = os.NewFile(uintptr(fd), part), true, rest
		if rest == "" {
			return at, nil
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

func openByComponent(dir *os.File, rel string, flags int) (fd int, err error) {
	at, owned := int(dir.Fd()), false
	parts := strings.Split(rel, "/")
	for i, part := range parts {
		how := unix.O_PATH | unix.O_DIRECTORY
		if i == len(parts)-1 {
			how = flags
		}
		fd, err = retry(func() (int, error) { return unix.Openat(at, part, how|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0) })
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

// openQuietly opens a file for reading without changing its access time, if the
// caller may ask for that.
func openQuietly(dir *os.File, base string, flags int) (*os.File, error) {
	f, err := openIn(dir, base, flags|unix.O_NOATIME, inTree)
	if errors.Is(err, unix.EPERM) {
		return openIn(dir, base, flags, inTree)
	}
	return f, err
}

func retry(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
}

// procPath names base in the open directory for calls that take no descriptor.
// The link in it leads to the very directory; base is one component.
func procPath(dir *os.File, base string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + base
}

// classify gives an error of the file system the class its reader can act on.
func classify(err error) error {
	class := error(errdefs.ErrInternal)
	switch {
	case err == nil, errdefs.IsFailedPrecondition(err), errdefs.IsInvalidArgument(err), errdefs.IsUnavailable(err),
		errdefs.IsNotFound(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		class = errdefs.ErrResourceExhausted
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTDIR),
		errors.Is(err, unix.ELOOP), errors.Is(err, unix.EOPNOTSUPP):
		class = errdefs.ErrFailedPrecondition
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESTALE):
		class = errdefs.ErrUnavailable
	}
	return fmt.Errorf("%w (%w)", err, class)
}
