// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ground is what ApplyOnto extracts a layer onto. Paths have no links. dir is always a
// descriptor that open gave for the directory that path is in, or -1 where only path
// is known.
type ground interface {
	// open opens a directory that something is to be changed in.
	open(path string) (int, error)
	// enter opens the directory base of the directory at, or returns the link that
	// is there. unix.ENOENT: nothing is. unix.EINVAL: something else.
	enter(dir int, at, base string) (fd int, link string, err error)
	// stat says what is at path. unix.ENOENT: nothing.
	stat(dir int, path string) (unix.Stat_t, error)
	// names lists a directory.
	names(dir int, path string) ([]string, error)
	// remove removes what is at path, if anything.
	remove(dir int, path string) error
	// vacate is called before something is made at path, where nothing is to be seen.
	// opaque says that a directory made there has to be marked as opaque.
	vacate(dir int, path string) (opaque bool, err error)
	// bring makes sure that a file can be linked to by its name in dir.
	bring(dir int, path string) error
}

// plainGround is a directory, or a mount, that shows all there is.
type plainGround struct{ root *os.File }

func (g plainGround) open(path string) (int, error) {
	if path == "" {
		path = "."
	}
	return openBeneath(int(g.root.Fd()), path)
}

func (g plainGround) enter(dir int, _, base string) (fd int, link string, err error) {
	fd, err = unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil || (!errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOTDIR)) {
		return fd, "", err
	}
	link, err = readLink(dir, base)
	return -1, link, err
}

func (g plainGround) stat(dir int, path string) (st unix.Stat_t, err error) {
	_, base := splitLast(path)
	err = unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

func (g plainGround) names(dir int, _ string) ([]string, error) { return namesIn(dir) }

func (g plainGround) remove(dir int, path string) error {
	_, base := splitLast(path)
	return removeAll(dir, base)
}

func (g plainGround) vacate(int, string) (bool, error) { return false, nil }

func (g plainGround) bring(int, string) error { return nil }
