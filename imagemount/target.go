// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// target is the directory of a mount. The one that it is in is held open: what that is
// called later does not matter.
type target struct {
	parent *os.File
	path   string // without links
}

// openTarget opens the directory to mount at.
//
// ErrNotFound: there is none. ErrFailedPrecondition: it is no directory, is not empty
// and cover does not allow that, or is a part of the store.
func openTarget(path, store string, cover Cover) (_ *target, err error) {
	real, err := realPath(path)
	if err != nil {
		return nil, err
	}
	if err := checkApart(real, store); err != nil {
		return nil, err
	}
	parent, err := openDir(unix.AT_FDCWD, filepath.Dir(real))
	if err != nil {
		return nil, err
	}
	t := &target{parent: parent, path: real}
	if err := t.check(cover); err != nil {
		return nil, errors.Join(err, parent.Close())
	}
	return t, nil
}

// openDir opens a directory. A link that came in its place since would lead elsewhere.
func openDir(dirfd int, path string) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(dirfd, path, how)
	if err != nil {
		return nil, fmt.Errorf("open %s to mount there: %w (%w)", path, err, errdefs.ErrFailedPrecondition)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w (%w)", path, err, errdefs.ErrFailedPrecondition)
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("there is no directory %s, make it first: %w", path, errdefs.ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w (%w)", path, err, errdefs.ErrFailedPrecondition)
	}
	return real, nil
}

// lexical is the path that a directory is recorded under, as far as it can be found out:
// the directory may be gone.
func lexical(path string) string {
	if real, err := realPath(path); err == nil {
		return real
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	return abs
}

// checkApart refuses directories of the store, and those that it is in.
func checkApart(path, store string) error {
	root, err := filepath.EvalSymlinks(store)
	if err != nil {
		return fmt.Errorf("the store %s: %w (%w)", store, err, errdefs.ErrFailedPrecondition)
	}
	if within(path, root) || within(root, path) {
		return fmt.Errorf("%s is a part of the image store %s, or has it inside, choose another directory: %w", path, root, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func (t *target) check(cover Cover) (err error) {
	dir, err := openDir(int(t.parent.Fd()), filepath.Base(t.path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if cover == CoverAnything {
		return nil
	}
	switch names, err := dir.Readdirnames(1); {
	case len(names) > 0:
		return fmt.Errorf("%s is not empty, the mount would hide what is in it (--force does it all the same): %w", t.path, errdefs.ErrFailedPrecondition)
	case err != io.EOF:
		return fmt.Errorf("read %s: %w (%w)", t.path, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// procPath leads to the directory, or to what is mounted there, wherever the one that it
// is in has gone. It is of use only in this process.
func (t *target) procPath() string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(t.parent.Fd())), filepath.Base(t.path))
}
