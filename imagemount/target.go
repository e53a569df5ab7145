// SPDX-License-Identifier: Apache-2.0

package imagemount

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

// target is the directory of a mount, held open: what its name leads to later does not
// matter.
type target struct {
	dir  *os.File
	path string // without links
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
	// No link: one that came since would lead elsewhere.
	how := &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, real, how)
	if err != nil {
		return nil, fmt.Errorf("open %s to mount there: %w (%w)", path, err, errdefs.ErrFailedPrecondition)
	}
	t := &target{dir: os.NewFile(uintptr(fd), real), path: real}
	if err := t.check(store, cover); err != nil {
		return nil, errors.Join(err, t.dir.Close())
	}
	return t, nil
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

func (t *target) check(store string, cover Cover) error {
	root, err := filepath.EvalSymlinks(store)
	if err != nil {
		return fmt.Errorf("the store %s: %w (%w)", store, err, errdefs.ErrFailedPrecondition)
	}
	if within(t.path, root) || within(root, t.path) {
		return fmt.Errorf("%s is a part of the image store %s, or has it inside, choose another directory: %w", t.path, root, errdefs.ErrFailedPrecondition)
	}
	if cover == CoverAnything {
		return nil
	}
	switch names, err := t.dir.Readdirnames(1); {
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

// procPath leads to the directory whatever its name leads to. It is of use only in this
// process.
func (t *target) procPath() string { return fmt.Sprintf("/proc/self/fd/%d", t.dir.Fd()) }
