// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"slices"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// alone extracts a layer knowing nothing of those below it. Names are made by
// one goroutine, in the order of the tar; only the content of files is written
// beside it. What an entry finds in its way is therefore all of this layer's own
// making.
type alone struct {
	*extraction
	tree *tree

	block    int64 // of the file system, in bytes
	inodes   int64
	bytes    int64
	recount  bool     // something counted was removed again
	dropped  []string // directories that were implicit, and were removed again
	metaSeen metaCache
	order    orderWriter
}

// needsMounted ends an extraction that can't be done alone.
type needsMounted struct{ reason string }

func (n *needsMounted) Error() string { return n.reason }

func mounted(format string, args ...any) error {
	return &needsMounted{reason: fmt.Sprintf(format, args...)}
}

func (a *alone) run() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(a.tree.root.fd, &fs); err != nil {
		return err
	}
	a.block = max(fs.Bsize, blockLen)
	if err := a.bareRoot(); err != nil {
		return err
	}
	if err := a.each(a.entry); err != nil {
		return err
	}
	return a.finish()
}

// bareRoot takes from the directory what its own parent may have handed down, a
// default ACL and a group: it would get into everything made in it.
func (a *alone) bareRoot() error {
	fd := a.tree.root.fd
	if err := a.meta.bare(fd); err != nil {
		return err
	}
	return unix.Fchmod(fd, 0o755)
}

func (a *alone) entry(e *entry) error {
	l, err := a.locate(e.name)
	if err != nil {
		return err
	}
	switch {
	case l.path == "":
		if e.typ != typeDir {
			return bad("entry %s would replace the root by something else", quote(e.name))
		}
		return nil // the root is nobody's to change
	case l.kind == overlayutil.Reserved:
		return a.skipContent(e)
	case l.kind == overlayutil.Whiteout:
		a.order.add(orderMarker, l.path, "")
		return errors.Join(a.whiteout(l), a.skipContent(e))
	case l.kind == overlayutil.Opaque:
		a.order.add(orderMarker, l.path, "")
		return errors.Join(a.opaque(l), a.skipContent(e))
	}
	if e.typ == typeLink {
		return a.hardLink(l, e)
	}
	a.order.add(orderEntry, l.path, "")
	switch e.typ {
	case typeDir:
		return a.directory(l, e)
	case typeRegular:
		return a.file(l, e)
	case typeSymlink, typeChar, typeBlock, typeFifo:
		return a.node(l, e)
	}
	return bad("entry %s has type %q, which is none that a layer can have", quote(e.name), e.typ)
}

// dir returns the directory that something goes into, and its descriptor. What
// of it has no entry is made, and noted as a question to the layers below.
func (a *alone) dir(path string) (*node, int, error) {
	n, err := a.implicit(path)
	if err != nil {
		return nil, -1, err
	}
	fd, err := a.tree.open(n)
	return n, fd, err
}

func (a *alone) implicit(path string) (*node, error) {
	if n := a.tree.dirs[path]; n != nil {
		if n.entry == nil {
			n.asked = true
		}
		return n, nil
	}
	dir, base := splitLast(path)
	parent, err := a.implicit(dir)
	if err != nil {
		return nil, err
	}
	n, err := a.mkdir(parent, path, base)
	if err == nil {
		n.asked = true
		err = a.implicitMeta(n)
	}
	return n, err
}

// implicitMeta: with override-stat every directory says whose it is.
func (a *alone) implicitMeta(n *node) error {
	if !a.opts.OverrideStat {
		return nil
	}
	fd, err := a.tree.open(n)
	if err != nil {
		return err
	}
	return a.meta.setOverride(fd, newDir(n.path))
}

// mkdir makes a directory that this layer does not have. Of what can be in its
// way, a whiteout says that what is below is gone, and a link leads to where
// only the layers below know what is.
func (a *alone) mkdir(parent *node, path, base string) (*node, error) {
	fd, err := a.tree.open(parent)
	if err != nil {
		return nil, err
	}
	err = unix.Mkdirat(fd, base, 0o755)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, err
		}
		switch {
		case a.isWhiteout(fd, base, &st):
			return a.mkdirFresh(parent, path, base)
		case st.Mode&unix.S_IFMT == unix.S_IFLNK:
			return nil, mounted("%s is a link that entries of the layer go through", quote(path))
		}
		return nil, bad("%s is no directory, but entries of the layer are in it", quote(path))
	}
	if err != nil {
		return nil, fmt.Errorf("make directory %s: %w", quote(path), err)
	}
	return a.tree.add(parent, path, base)
}

// mkdirFresh makes a directory in the place of what this layer has there. What
// the layers below have there does not show: it was replaced before.
func (a *alone) mkdirFresh(parent *node, path, base string) (*node, error) {
	fd, err := a.tree.open(parent)
	if err != nil {
		return nil, err
	}
	if err := a.clear(fd, path, base); err != nil {
		return nil, err
	}
	if err := unix.Mkdirat(fd, base, 0o755); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", quote(path), err)
	}
	n, err := a.tree.add(parent, path, base)
	if err != nil {
		return nil, err
	}
	if !n.hidden() {
		err = a.meta.setOpaque(n.fd)
	}
	n.fresh = true
	return n, err
}

func (a *alone) isWhiteout(dirfd int, base string, st *unix.Stat_t) bool {
	if overlayutil.IsWhiteout(st) {
		return true
	}
	return a.opts.OverrideStat && isOverrideWhiteout(dirfd, base, st)
}

// clear removes what this layer has at path.
func (a *alone) clear(dirfd int, path, base string) error {
	a.recount = true
	a.metaSeen.forget()
	if n := a.tree.dirs[path]; n != nil {
		a.dropChecks(n)
		if err := a.tree.forget(n); err != nil {
			return err
		}
	}
	err := removeAll(dirfd, base)
	if err == nil && a.opts.OverrideStat {
		err = dropCompanion(dirfd, base)
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", quote(path), err)
	}
	return nil
}

// dropChecks remembers what is still to be asked when n, or a part of it, goes:
// what went in before would have gone through a link of the layers below, and
// would have been refused below a file.
func (a *alone) dropChecks(n *node) {
	n.walk(func(d *node) {
		if d.asked && !d.fresh && !d.parent.hidden() {
			a.dropped = append(a.dropped, d.path)
		}
	})
}

// replacing runs fn, which makes something at l, and once more after removing
// what was in its way.
func (a *alone) replacing(l place, dirfd int, fn func() error) error {
	err := fn()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := a.clear(dirfd, l.path, l.base); err != nil {
		return err
	}
	return fn()
}

func (a *alone) directory(l place, e *entry) error {
	if n := a.tree.dirs[l.path]; n != nil {
		n.entry = e
		return nil
	}
	parent, fd, err := a.dir(l.dir)
	if err != nil {
		return err
	}
	var n *node
	err = unix.Mkdirat(fd, l.base, 0o755)
	if errors.Is(err, unix.EEXIST) {
		n, err = a.mkdirFresh(parent, l.path, l.base)
	} else if err == nil {
		n, err = a.tree.add(parent, l.path, l.base)
	}
	if err != nil {
		return fmt.Errorf("directory %s: %w", quote(l.path), err)
	}
	n.entry = e
	return nil
}

func (a *alone) file(l place, e *entry) error {
	_, dirfd, err := a.dir(l.dir)
	if err != nil {
		return err
	}
	created := e.mode & 0o777
	if a.opts.OverrideStat {
		created = overrideFileMode
	}
	var fd int
	err = a.replacing(l, dirfd, func() (err error) {
		fd, err = unix.Openat(dirfd, l.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, created)
		return err
	})
	if err != nil {
		return fmt.Errorf("file %s: %w", quote(l.path), err)
	}
	if e.segments != nil {
		a.order.giveUp() // holes would have to stay holes
	}
	a.countFile(e)
	a.metaSeen.add(l.path, e)
	return a.fill(fd, l.path, e, created)
}

func (a *alone) countFile(e *entry) {
	a.inodes++
	if e.segments == nil {
		a.bytes += a.blocks(0, e.size)
	}
	for _, s := range e.segments {
		a.bytes += a.blocks(s.offset, s.length)
	}
}

// blocks is what length bytes at offset take on disk.
func (a *alone) blocks(offset, length int64) int64 {
	if length == 0 {
		return 0
	}
	first := offset / a.block
	last := (offset + length - 1) / a.block
	return (last - first + 1) * a.block
}

func (a *alone) node(l place, e *entry) error {
	if e.isWhiteoutDevice() {
		return bad("entry %s is a character device 0:0, which would delete a file", quote(e.name))
	}
	if a.skipsDevice(e) {
		a.order.giveUp() // it is not in the directory
		return nil
	}
	_, dirfd, err := a.dir(l.dir)
	if err != nil {
		return err
	}
	if err := a.replacing(l, dirfd, func() error { return a.makeNode(dirfd, l.base, e) }); err != nil {
		return fmt.Errorf("entry %s: %w", quote(l.path), err)
	}
	a.inodes++
	if e.typ == typeSymlink && int64(len(e.link)) >= inlineLink {
		a.bytes += a.block
	}
	if err := a.meta.node(dirfd, l.base, e); err != nil {
		return fmt.Errorf("entry %s: %w", quote(l.path), err)
	}
	return a.index.node(dirfd, l, e)
}

// inlineLink is up to what length a link fits into an inode of ext4.
const inlineLink = 60

func (a *alone) finish() error {
	for path, n := range a.tree.dirs {
		if err := a.finishDir(path, n); err != nil {
			return fmt.Errorf("directory %s: %w", quote(path), err)
		}
	}
	if a.opts.OverrideStat {
		if err := a.meta.setOverride(a.tree.root.fd, newDir("")); err != nil {
			return err
		}
	}
	slices.Sort(a.result.Needs.Dirs)
	a.result.Needs.Checks = append(a.result.Needs.Checks, slices.DeleteFunc(a.dropped, a.tree.opaqueAbove)...)
	slices.Sort(a.result.Needs.Checks)
	a.result.Needs.Checks = slices.Compact(a.result.Needs.Checks)
	a.result.Empty = a.inodes == 0 && len(a.tree.dirs) == 1 && !a.recount
	a.result.OpaqueRoot = a.tree.root.opaque
	a.result.Inodes, a.result.Bytes = a.inodes+a.meta.markers+int64(len(a.tree.dirs)), a.bytes
	if a.recount {
		a.result.Inodes, a.result.Bytes = -1, -1
		return nil
	}
	if !a.result.Needs.None() && !a.opts.OverrideStat {
		a.result.Needs.Order = a.order.b
	}
	var st unix.Stat_t // of the root nothing was set that would not be read back
	if err := a.index.directory(a.tree.root, a.tree.root.fd, &st); err != nil {
		return err
	}
	var err error
	a.result.Indexed, err = a.index.finish(a.tree)
	return err
}

// finishDir sets what entries say of directories. Only now: a default ACL or
// setgid would be handed down to what was made in them, and every file changed
// their times.
func (a *alone) finishDir(path string, n *node) error {
	fd, err := a.tree.open(n)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	a.bytes += st.Blocks * blockLen
	if n == a.tree.root {
		return nil
	}
	switch below := !n.parent.hidden() && !n.fresh; {
	case below && n.entry == nil:
		a.result.Needs.Dirs = append(a.result.Needs.Dirs, path)
	case below && n.asked:
		a.result.Needs.Checks = append(a.result.Needs.Checks, path)
	}
	if n.entry != nil {
		if err := a.meta.file(fd, n.entry, 0o755); err != nil {
			return err
		}
	}
	return a.index.directory(n, fd, &st)
}
