// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// copier makes an exact copy of a tree in an empty directory. Nothing else uses
// either of them.
type copier struct {
	dst    *os.File
	dir    *os.File // of dst, in which the present entry is made
	dirRel string
	links  map[inode]string
	xattrs *xattrReader
}

// copyTree copies what is below src, and src's own metadata, to dst.
func copyTree(ctx context.Context, src, dst *os.File) error {
	c := &copier{dst: dst, links: map[inode]string{}, xattrs: newXattrReader()}
	// What the store's directory would hand down is not the layer's.
	for _, acl := range []string{aclAccess, aclDefault} {
		err := unix.Fremovexattr(int(dst.Fd()), acl)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	if err := errors.Join(walk(ctx, src, c.make), c.leave()); err != nil {
		return err
	}
	// Directories last: making something in one changes its time, and its mode,
	// group and ACL would be handed down.
	return walk(ctx, src, func(e *entry) error {
		if e.kind() != unix.S_IFDIR {
			return nil
		}
		return c.directory(e)
	})
}

// enter opens the directory of the copy that rel is in.
func (c *copier) enter(rel string) error {
	parent := path.Dir(rel)
	if c.dir != nil && c.dirRel == parent {
		return nil
	}
	if err := c.leave(); err != nil {
		return err
	}
	dir, err := openIn(c.dst, parent, dirFlags, inTree)
	if err != nil {
		return err
	}
	c.dir, c.dirRel = dir, parent
	return nil
}

func (c *copier) leave() error {
	if c.dir == nil {
		return nil
	}
	err := c.dir.Close()
	c.dir = nil
	return err
}

// make makes an entry, with its metadata unless it is a directory.
func (c *copier) make(e *entry) error {
	if e.rel == "." {
		return nil
	}
	if err := c.enter(e.rel); err != nil {
		return err
	}
	if canBeLinked(e) {
		key := inode{e.st.Dev, e.st.Ino}
		if first, again := c.links[key]; again {
			return c.link(first, e)
		}
		c.links[key] = e.rel
	}
	var err error
	switch e.kind() {
	case unix.S_IFDIR:
		err = unix.Mkdirat(int(c.dir.Fd()), e.base, 0o700)
	case unix.S_IFREG:
		return c.file(e)
	case unix.S_IFLNK:
		err = c.symlink(e)
	default:
		err = c.node(e)
	}
	if err != nil || e.kind() == unix.S_IFDIR {
		return wrapAt("make", e, err)
	}
	return c.metadata(e)
}

func wrapAt(what string, e *entry, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: what, Path: e.rel, Err: err}
}

func (c *copier) link(first string, e *entry) (err error) {
	from, err := openIn(c.dst, path.Dir(first), dirFlags, inTree)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	return wrapAt("link", e, unix.Linkat(int(from.Fd()), path.Base(first), int(c.dir.Fd()), e.base, 0))
}

func (c *copier) symlink(e *entry) error {
	target, err := e.readlink()
	if err != nil {
		return err
	}
	return unix.Symlinkat(target, int(c.dir.Fd()), e.base)
}

func (c *copier) node(e *entry) error {
	err := unix.Mknodat(int(c.dir.Fd()), e.base, e.kind()|0o600, int(e.st.Rdev))
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("a device can't be made here, export as root of the machine: %w (%w)", err, errdefs.ErrFailedPrecondition)
	}
	return err
}

func (c *copier) directory(e *entry) error {
	if e.rel == "." {
		return c.metadataOf(e, c.dst, ".")
	}
	if err := c.enter(e.rel); err != nil {
		return err
	}
	return c.metadata(e)
}

func (c *copier) metadata(e *entry) error { return c.metadataOf(e, c.dir, e.base) }

// metadataOf gives base in dir owner, attributes, mode and time of e, in this
// order: a change of the owner takes setuid and capabilities away, everything
// changes the time.
func (c *copier) metadataOf(e *entry, dir *os.File, base string) error {
	if err := unix.Fchownat(int(dir.Fd()), base, int(e.st.Uid), int(e.st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return wrapAt("chown", e, err)
	}
	attrs, err := c.xattrs.read(e)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if err := unix.Lsetxattr(procPath(dir, base), a.name, []byte(a.value), 0); err != nil {
			return wrapAt("set attribute "+a.name+" of", e, err)
		}
	}
	if e.kind() != unix.S_IFLNK {
		// The entry is one that this process made and no link, so it may be followed.
		if err := unix.Fchmodat(int(dir.Fd()), base, e.st.Mode&0o7777, 0); err != nil {
			return wrapAt("chmod", e, err)
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, e.st.Mtim}
	return wrapAt("set the time of", e, unix.UtimesNanoAt(int(dir.Fd()), base, times, unix.AT_SYMLINK_NOFOLLOW))
}
