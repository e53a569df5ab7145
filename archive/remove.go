// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// removeAll removes dirfd/base, which is of this layer's making, whatever it is.
func removeAll(dirfd int, base string) error {
	err := unix.Unlinkat(dirfd, base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	return removeDir(dirfd, base, 0)
}

// maxRemoveDepth is how many levels of directories removing keeps open: a layer
// can be thousands of levels deep.
const maxRemoveDepth = 64

func removeDir(dirfd int, base string, depth int) error {
	if depth == maxRemoveDepth {
		return removeDeep(dirfd, base)
	}
	dir, err := openToRemove(dirfd, base)
	if err != nil {
		return err
	}
	if err := removeContents(dir, depth+1); err != nil {
		return err
	}
	return unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR)
}

func openToRemove(dirfd int, base string) (*os.File, error) {
	fd, err := unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), base), nil
}

// removeContents empties dir and closes it.
func removeContents(dir *os.File, depth int) (err error) {
	defer func() { err = errors.Join(err, dir.Close()) }()
	_, err = removeFiles(dir, func(name string) error { return removeDir(int(dir.Fd()), name, depth) })
	return err
}

// removeFiles empties dir; directory does it for the directories in it. If that
// is nil, the first one's name is returned instead.
func removeFiles(dir *os.File, directory func(name string) error) (sub string, err error) {
	for {
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return "", err
		}
		names, err := dir.Readdirnames(1024)
		if len(names) == 0 {
			if errors.Is(err, io.EOF) {
				return "", nil
			}
			return "", err
		}
		for _, name := range names {
			err := unix.Unlinkat(int(dir.Fd()), name, 0)
			switch isDir := errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM); {
			case isDir && directory == nil:
				return name, nil
			case isDir:
				err = directory(name)
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return "", err
			}
		}
	}
}

// removeDeep is removeDir with one descriptor: it goes down into the first
// directory that it finds, and up again once that is gone. The way up is checked,
// so that whoever moves a directory meanwhile does not lead it elsewhere.
func removeDeep(dirfd int, base string) error {
	dir, err := openToRemove(dirfd, base)
	if err != nil {
		return err
	}
	way := []step{{name: base}}
	for {
		sub, err := removeFiles(dir, nil)
		if err != nil {
			return errors.Join(err, dir.Close())
		}
		switch {
		case sub != "":
			dir, err = goDown(dir, sub, &way)
		case len(way) == 1:
			return errors.Join(dir.Close(), unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR))
		default:
			dir, err = goUp(dir, &way)
		}
		if err != nil {
			return err
		}
	}
}

// step is a directory on the way down, and the one it is in.
type step struct {
	name     string
	dev, ino uint64
}

func goDown(dir *os.File, sub string, way *[]step) (*os.File, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(dir.Fd()), &st)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	*way = append(*way, step{sub, st.Dev, st.Ino})
	next, err := openToRemove(int(dir.Fd()), sub)
	return next, errors.Join(err, dir.Close())
}

func goUp(dir *os.File, way *[]step) (*os.File, error) {
	last := (*way)[len(*way)-1]
	*way = (*way)[:len(*way)-1]
	up, err := openToRemove(int(dir.Fd()), "..")
	if err := errors.Join(err, dir.Close()); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(up.Fd()), &st)
	if err == nil && (st.Dev != last.dev || st.Ino != last.ino) {
		err = fmt.Errorf("directory %s was moved while it was removed: %w", quote(last.name), unix.ESTALE)
	}
	if err == nil {
		err = unix.Unlinkat(int(up.Fd()), last.name, unix.AT_REMOVEDIR)
	}
	if err != nil {
		return nil, errors.Join(err, up.Close())
	}
	return up, nil
}
