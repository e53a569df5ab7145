// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// below is the root of what a snapshot stands on.
type below struct{ dir *os.File }

func openBelow(root string) (below, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return below{}, fmt.Errorf("open what the snapshot stands on: %w", err)
	}
	return below{os.NewFile(uintptr(fd), root)}, nil
}

// open opens a path as it is: a link on the way is no directory.
func (b below) open(name string, flags uint64) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   flags | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(int(b.dir.Fd()), name, how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// absent tells whether an error says that there is nothing under a name.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// has tells whether a path is there. O_PATH with O_NOFOLLOW would take a link itself, but
// not under RESOLVE_NO_SYMLINKS, so only its directory is opened.
func (b below) has(name string) (there bool, err error) {
	dir, err := b.open(path.Dir(name), unix.O_PATH|unix.O_DIRECTORY)
	if absent(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), path.Base(name), &st, unix.AT_SYMLINK_NOFOLLOW)
	if absent(err) {
		return false, nil
	}
	return err == nil, err
}

// names lists a directory. What is no directory has none.
func (b below) names(name string) (names []string, err error) {
	dir, err := b.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the directory %q: %w", name, err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return dir.Readdirnames(-1)
}
