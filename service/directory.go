// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// openDir opens the directory at the absolute path as an O_PATH descriptor.
// What is missing is created, closed to everybody the access does not name;
// directories that exist are left as they are, their owner chose their mode.
func (a access) openDir(path string) (_ *os.File, err error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		return os.NewFile(uintptr(fd), path), nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("directory %s of the socket: %w: %w", path, err, errdefs.ErrFailedPrecondition)
	}
	parent, err := a.openDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	dir, err := a.createDir(parent, filepath.Base(path))
	if err != nil {
		return nil, fmt.Errorf("create directory %s for the socket: %w: %w", path, err, errdefs.ErrFailedPrecondition)
	}
	return dir, nil
}

// createDir makes and opens parent/name. The mode at creation is never wider
// than the final one, so there is no moment at which a stranger gets in.
func (a access) createDir(parent *os.File, name string) (*os.File, error) {
	made := unix.Mkdirat(int(parent.Fd()), name, 0o700)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return nil, made
	}
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dir := os.NewFile(uintptr(fd), filepath.Join(parent.Name(), name))
	if made != nil {
		// Somebody else was quicker; the directory is theirs.
		return dir, nil
	}
	if err := a.apply(fd, a.dirMode()); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}
