// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOpenPath keeps the path of one openat2 call below PATH_MAX.
const maxOpenPath = 4000

// openBeneath opens rel below root without following a link or entering a mount. rel may
// be longer than PATH_MAX.
func openBeneath(root *os.File, rel string) (*os.File, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	if rel == "" {
		rel = "."
	}
	dir, owned := root, false
	for {
		part, rest := rel, ""
		if len(rel) > maxOpenPath {
			i := strings.LastIndexByte(rel[:maxOpenPath], '/') // a name has at most 255 bytes
			if i < 0 {
				return nil, unix.ENAMETOOLONG
			}
			part, rest = rel[:i], rel[i+1:]
		}
		fd, err := retry(func() (int, error) { return unix.Openat2(int(dir.Fd()), part, how) })
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

// openFile opens a file for reading, without changing when it was last read where the
// kernel lets this process do so, see open(2).
func openFile(dirfd int, base string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) { return unix.Openat(dirfd, base, flags|unix.O_NOATIME, 0) })
	if errors.Is(err, unix.EPERM) {
		fd, err = retry(func() (int, error) { return unix.Openat(dirfd, base, flags, 0) })
	}
	return fd, err
}

func retry(fn func() (int, error)) (int, error) {
	for {
		n, err := fn()
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
}

func splitLast(path string) (dir, base string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func join(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// place keeps the directory open that was asked for last: entries come directory by
// directory.
type place struct {
	root *os.File
	path string
	dir  *os.File
}

func (p *place) open(path string) (int, error) {
	if p.dir != nil && p.path == path {
		return int(p.dir.Fd()), nil
	}
	if err := p.close(); err != nil {
		return -1, err
	}
	dir, err := openBeneath(p.root, path)
	if err != nil {
		return -1, err
	}
	p.dir, p.path = dir, path
	return int(dir.Fd()), nil
}

func (p *place) close() error {
	if p.dir == nil {
		return nil
	}
	dir := p.dir
	p.dir = nil
	return dir.Close()
}

// parent opens the directory that path is in: of the root, the root itself.
func (p *place) parent(path string) (dirfd int, base string, err error) {
	if path == "" {
		dirfd, err = p.open("")
		return dirfd, ".", err
	}
	dir, base := splitLast(path)
	dirfd, err = p.open(dir)
	return dirfd, base, err
}
