// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// ApplyOnto extracts a layer onto a directory that shows the layers below: an
// overlay mount with an upperdir, or any plain directory. It is exact for every
// layer, and slower than Apply, as it has to look at what is there. Links in the
// way are followed, but never out of dir.
//
// An ordinary user, who can't mount the layers below, passes them in Options.Lowers and
// an empty directory, which then gets what the layer changes of them.
//
// Result.Bytes and Inodes are -1: on an overlay only the kernel knows what was
// copied up. Errors are those of Apply.
func ApplyOnto(ctx context.Context, src Source, dir *os.File, opts Options) (Result, error) {
	opts = opts.withDefaults()
	return extract(ctx, src, opts, func(x *extraction) error {
		o := newOnto(x, dir)
		err := o.plainRoot(dir)
		if err == nil {
			err = o.each(o.entry)
		}
		if err == nil {
			err = o.finish()
		}
		x.result.Bytes, x.result.Inodes = -1, -1
		return x.writers.end(err)
	})
}

// onto extracts onto a merged view, as the image specification describes it.
type onto struct {
	*extraction
	ground ground
	seen   *seen // the root's
	// looked is how many names opaque markers went through. Tests hold it against
	// what there was.
	looked int
}

func newOnto(x *extraction, dir *os.File) *onto {
	o := &onto{extraction: x, ground: plainGround{dir}, seen: &seen{}}
	if len(x.opts.Lowers) > 0 {
		o.ground = &stackGround{upper: dir, lower: newStack(x.opts.Lowers), seen: o.seen, meta: x.meta}
	}
	return o
}

// plainRoot gives the directory the attribute by which readers know that what is in it
// has one.
func (o *onto) plainRoot(dir *os.File) error {
	if !o.opts.OverrideStat {
		return nil
	}
	known, err := readOverride(int(dir.Fd()))
	if err != nil || known != nil {
		return err
	}
	return o.meta.setOverride(int(dir.Fd()), newDir(""))
}

func (o *onto) entry(e *entry) error {
	l, err := o.locate(e.name)
	if err != nil {
		return err
	}
	if l.path == "" {
		if e.typ != typeDir {
			return bad("entry %s would replace the root by something else", quote(e.name))
		}
		return nil
	}
	if l.kind == overlayutil.Reserved {
		return o.skipContent(e)
	}
	at, err := o.resolve(l.dir)
	if err != nil {
		return err
	}
	dir, err := o.openDir(at)
	if err != nil {
		return err
	}
	l.path, l.dir = join(at, l.base), at
	err = o.place(l, e, dir)
	return errors.Join(err, unix.Close(dir))
}

// place does what the entry says in the directory dir. l is free of links.
func (o *onto) place(l place, e *entry, dir int) error {
	switch l.kind {
	case overlayutil.Whiteout:
		return errors.Join(o.remove(dir, join(l.dir, l.target)), o.skipContent(e))
	case overlayutil.Opaque:
		return errors.Join(o.clearBelow(l.dir), o.skipContent(e))
	}
	if e.typ == typeDir {
		return o.directory(l, e, dir)
	}
	if e.typ == typeLink {
		return o.hardLink(l, e, dir)
	}
	if e.isWhiteoutDevice() {
		return bad("entry %s is a character device 0:0, which would delete a file", quote(e.name))
	}
	if o.skipsDevice(e) {
		return nil
	}
	err := o.remove(dir, l.path)
	if err == nil {
		_, err = o.ground.vacate(dir, l.path)
	}
	if err != nil {
		return err
	}
	o.seen.at(l.path).made = true
	if e.typ == typeRegular {
		return o.file(l, e, dir)
	}
	err = o.makeNode(dir, l.base, e)
	if err == nil {
		err = o.plainNode(dir, l.base, e)
	}
	if err == nil {
		err = o.meta.node(dir, l.base, e)
	}
	if err != nil {
		return fmt.Errorf("entry %s: %w", quote(l.path), err)
	}
	return nil
}

func (o *onto) file(l place, e *entry, dir int) error {
	// What a default ACL or setgid of the directory hands down is put right with
	// the metadata, so the mode the file is made with is not relied on.
	fd, err := unix.Openat(dir, l.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("file %s: %w", quote(l.path), err)
	}
	if err := o.plain(fd); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	return o.fill(fd, l.path, e, unknownMode)
}

// unknownMode is no mode, so that the metadata always sets one.
const unknownMode = 1 << 31

// plain takes from a new file what its directory handed down.
func (o *onto) plain(fd int) error { return o.meta.bare(fd) }

// plainNode is plain for what stands for a device or a pipe. Real ones get an access
// list that is handed down with their metadata: their mode.
func (o *onto) plainNode(dir int, base string, e *entry) error {
	if !o.opts.OverrideStat || e.typ == typeSymlink {
		return nil
	}
	fd, err := openPlain(dir, base)
	if err != nil {
		return err
	}
	return errors.Join(o.plain(fd), unix.Close(fd))
}

// plainDir makes a directory look like one that nobody says anything of.
func (o *onto) plainDir(fd int) error {
	if err := o.plain(fd); err != nil {
		return err
	}
	if o.opts.OverrideStat {
		if err := o.meta.setOverride(fd, newDir("")); err != nil {
			return err
		}
	}
	return unix.Fchmod(fd, 0o755)
}

func (o *onto) directory(l place, e *entry, dir int) error {
	st, err := o.ground.stat(dir, l.path)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		n := o.seen.at(l.path)
		n.made, n.entry = true, e
		return nil
	}
	if err == nil {
		err = o.remove(dir, l.path)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := o.makeDir(dir, l.path, l.base); err != nil {
		return err
	}
	o.seen.at(l.path).entry = e
	return nil
}

// makeDir makes a directory that belongs to nobody's entry yet: 0755, root's.
func (o *onto) makeDir(dir int, path, base string) error {
	opaque, err := o.ground.vacate(dir, path)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(dir, base, 0o755); err != nil {
		return fmt.Errorf("make directory %s: %w", quote(path), err)
	}
	n := o.seen.at(path)
	n.made, n.clean = true, true
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = o.plainDir(fd)
	if err == nil && opaque {
		n.opaque = true
		err = o.meta.setOpaque(fd)
	}
	return errors.Join(err, unix.Close(fd))
}

// remove removes path, and forgets what this layer had there.
func (o *onto) remove(dir int, path string) error {
	if err := o.ground.remove(dir, path); err != nil {
		return fmt.Errorf("remove %s: %w", quote(path), err)
	}
	o.seen.forget(path)
	return nil
}

// clearBelow is an opaque marker: everything in the directory goes that this
// layer did not make. A second marker finds nothing to do, also further down:
// since the first, only this layer can have put something there.
func (o *onto) clearBelow(path string) error {
	top := o.seen.at(path)
	if top.hides() {
		return nil
	}
	for todo := []directory{{path, top}}; len(todo) > 0; {
		at := todo[len(todo)-1]
		kept, err := o.clearOne(at, at.seen == top)
		if err != nil {
			return err
		}
		todo = append(todo[:len(todo)-1], kept...)
	}
	top.clean = true
	return nil
}

// clearOne is clearBelow for one directory, the one with the marker or one in it.
// It returns the directories that stay.
func (o *onto) clearOne(at directory, marked bool) (kept []directory, err error) {
	if at.clean && (marked || at.made) {
		return nil, nil
	}
	dir, err := o.openDir(at.path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unix.Close(dir)) }()
	if !at.clean {
		if kept, err = o.clearDir(dir, at); err != nil {
			return nil, err
		}
	}
	if !marked && !at.made {
		err = o.renew(dir, at.seen)
	}
	return kept, err
}

// clearDir removes the names in dir that this layer has nothing at or below.
func (o *onto) clearDir(dir int, at directory) (kept []directory, err error) {
	names, err := o.ground.names(dir, at.path)
	if err != nil {
		return nil, err
	}
	o.looked += len(names)
	for _, name := range names {
		path, child := join(at.path, name), at.children[name]
		if child == nil {
			if err := o.remove(dir, path); err != nil {
				return nil, err
			}
			continue
		}
		st, err := o.ground.stat(dir, path)
		if err != nil {
			return nil, err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			kept = append(kept, directory{path, child})
		}
	}
	return kept, nil
}

// renew makes an implicit directory look as if it had not been there before: what
// the layers below say of it is hidden, too.
func (o *onto) renew(fd int, n *seen) error {
	n.made, n.timed = true, false
	return errors.Join(o.dropXattrs(fd), o.plainDir(fd))
}

func (o *onto) hardLink(l place, e *entry, dir int) error {
	target, err := o.locate(e.link)
	if err != nil {
		return err
	}
	if target.path == "" {
		return bad("entry %s is a hard link to the root", quote(e.name))
	}
	// What the link replaces goes first: the way to the target may lead through it.
	if err := o.remove(dir, l.path); err != nil {
		return err
	}
	at, err := o.lookup(target.dir)
	if err != nil {
		return bad("entry %s is a hard link to %s, which is not there", quote(e.name), quote(target.path))
	}
	from, err := o.openDir(at)
	if err != nil {
		return err
	}
	err = o.link(l, e, dir, from, join(at, target.base))
	return errors.Join(err, unix.Close(from))
}

func (o *onto) link(l place, e *entry, dir, from int, target string) error {
	_, base := splitLast(target)
	st, err := o.ground.stat(from, target)
	if errors.Is(err, unix.ENOENT) || (err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR) {
		return bad("entry %s is a hard link to %s, which is no file", quote(e.name), quote(e.link))
	}
	if err != nil {
		return err
	}
	o.seen.at(l.path).made = true
	// An overlay copies the target up for the link: what is still being
	// written to it must be there first.
	if err := o.writers.settle(); err != nil {
		return err
	}
	if err := o.ground.bring(from, target); err != nil {
		return fmt.Errorf("hard link %s: copy %s from the layers below: %w", quote(l.path), quote(target), err)
	}
	if _, err := o.ground.vacate(dir, l.path); err != nil {
		return fmt.Errorf("hard link %s: %w", quote(l.path), err)
	}
	if err := unix.Linkat(from, base, dir, l.base, 0); err != nil {
		return fmt.Errorf("hard link %s: %w", quote(l.path), err)
	}
	if err := o.meta.node(dir, l.base, e); err != nil {
		return fmt.Errorf("hard link %s: %w", quote(l.path), err)
	}
	return nil
}

// finish sets what entries say of directories, and gives those that nobody named
// their times back.
func (o *onto) finish() error {
	for _, d := range o.seen.directories() {
		fd, err := o.openDir(d.path)
		if err != nil {
			return err
		}
		if d.entry != nil {
			err = o.directoryMeta(fd, d.entry)
		} else {
			err = setTimes(fd, d.time)
		}
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return fmt.Errorf("directory %s: %w", quote(d.path), err)
		}
	}
	return nil
}

// directoryMeta: an entry's attributes take the place of those that were there.
func (o *onto) directoryMeta(fd int, e *entry) error {
	if err := o.dropXattrs(fd); err != nil {
		return err
	}
	return o.meta.file(fd, e, unknownMode)
}

func (o *onto) dropXattrs(fd int) error {
	names, err := listXattrs(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !o.meta.allowed(name) || !isLayerXattr(name) {
			continue
		}
		if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("remove attribute %s: %w", quote(name), err)
		}
	}
	return nil
}
