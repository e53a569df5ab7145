// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// hardLink gives a file of this layer one more name. A file of a layer below can
// only be linked to on a mount, which copies it up.
func (a *alone) hardLink(l place, e *entry) error {
	target, err := a.locate(e.link)
	if err != nil {
		return err
	}
	if target.path == l.path || target.path == "" {
		return bad("entry %s is a hard link to itself or to the root", quote(e.name))
	}
	fromfd, inode, err := a.linkTarget(target, e)
	if err != nil {
		return err
	}
	defer unix.Close(fromfd) //nolint:errcheck // a descriptor that was not written to
	_, dirfd, err := a.dir(l.dir)
	if err != nil {
		return err
	}
	if n := a.tree.dirs[l.path]; n != nil && hasPrefixDir(target.path, l.path) {
		return bad("entry %s is a hard link to what it replaces", quote(e.name))
	}
	err = a.replacing(l, dirfd, func() error {
		return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fromfd), dirfd, l.base, unix.AT_SYMLINK_FOLLOW)
	})
	if err != nil {
		return fmt.Errorf("hard link %s: %w", quote(l.path), err)
	}
	a.order.add(orderLink, l.path, target.path)
	if err := a.index.link(l.path, target.path, inode); err != nil {
		return err
	}
	if a.metaSeen.same(target.path, e) {
		a.metaSeen.add(l.path, e)
		return nil
	}
	a.index.amend(inode)
	// The file may still be being written, and would get its first entry's
	// metadata after this one's.
	if err := a.writers.settle(); err != nil {
		return err
	}
	a.metaSeen.forget()
	if err := a.meta.node(dirfd, l.base, e); err != nil {
		return fmt.Errorf("hard link %s: %w", quote(l.path), err)
	}
	return nil
}

func hasPrefixDir(path, dir string) bool {
	return len(path) > len(dir) && path[:len(dir)] == dir && path[len(dir)] == '/'
}

// linkTarget opens the target, without following or reading it.
func (a *alone) linkTarget(target place, e *entry) (fd int, inode uint64, err error) {
	n := a.tree.dirs[target.dir]
	if n == nil {
		return -1, 0, a.targetBelow(target, e)
	}
	dirfd, err := a.tree.open(n)
	if err != nil {
		return -1, 0, err
	}
	fd, err = unix.Openat(dirfd, target.base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, 0, a.targetBelow(target, e)
	}
	if err != nil {
		return -1, 0, fmt.Errorf("target %s of hard link %s: %w", quote(target.path), quote(e.name), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, 0, errors.Join(err, unix.Close(fd))
	}
	switch dir := a.tree.dirs[target.path]; {
	case dir != nil && dir.entry == nil && !dir.fresh && !dir.parent.hidden():
		err = mounted("%s is a hard link to %s, which is a directory unless the layers below have a link there", quote(e.name), quote(target.path))
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		err = bad("entry %s is a hard link to the directory %s", quote(e.name), quote(target.path))
	case a.isWhiteout(dirfd, target.base, &st):
		err = bad("entry %s is a hard link to %s, which the layer deletes", quote(e.name), quote(target.path))
	}
	if err != nil {
		return -1, 0, errors.Join(err, unix.Close(fd))
	}
	return fd, st.Ino, nil
}

// targetBelow: the target is not in this layer. If it can't be below either, the
// tar is broken.
func (a *alone) targetBelow(target place, e *entry) error {
	for path := target.dir; ; path, _ = splitLast(path) {
		n := a.tree.dirs[path]
		if n == nil {
			continue
		}
		if n.hidden() {
			return bad("entry %s is a hard link to %s, which is not there", quote(e.name), quote(target.path))
		}
		break
	}
	return mounted("%s is a hard link to a file of a layer below", quote(e.name))
}

// metaCache remembers the metadata of the last files, so that a hard link whose
// entry says the same again, as most do, need not wait for the file.
type metaCache struct {
	entries map[string]*entry
}

const maxMetaCache = 4096

func (c *metaCache) add(path string, e *entry) {
	if c.entries == nil || len(c.entries) >= maxMetaCache {
		c.entries = make(map[string]*entry, 64)
	}
	c.entries[path] = e
}

func (c *metaCache) forget() { c.entries = nil }

func (c *metaCache) same(path string, e *entry) bool {
	t := c.entries[path]
	return t != nil && t.uid == e.uid && t.gid == e.gid && t.mode == e.mode && t.mtime == e.mtime &&
		(len(t.xattrs) == 0 && len(e.xattrs) == 0 || reflect.DeepEqual(t.xattrs, e.xattrs))
}

// isXattrWhiteout: an empty file with the whiteout attribute.
func isXattrWhiteout(dirfd int, base string, st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false
	}
	at := "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + base
	_, err := unix.Lgetxattr(at, string(overlayutil.User)+"whiteout", nil)
	return err == nil
}

// namesIn lists a directory through a descriptor of its own.
func namesIn(dirfd int) (names []string, err error) {
	fd, err := unix.Openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Readdirnames(-1)
}
