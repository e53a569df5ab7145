// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// differ walks an upper directory, depth first and sorted by name.
type differ struct {
	ctx  context.Context
	out  *diffWriter
	opts DiffOptions
	ns   overlayutil.XattrNamespace
	// override: owners and modes are in attributes
	override bool
	uid      uint32   // of this process
	proc     int      // /proc/self/fd: a file that is pinned is opened through it
	parent   *diffDir // the root of the layers below, or nil
	limits   Limits   // what Apply takes of a path
	links    map[diffInode]*diffLink
	warned   map[string]bool
	buf      []byte // for attributes
}

// diffNode is a directory of the merged view on the way to where the walk is.
type diffNode struct {
	parent *diffNode // nil for the root
	path   string    // in the layer; "" for the root
	depth  int
	// upper is the directory in the upper, nil in what a moved directory brought
	// along. lower is the one that overlay merges it with, or nil.
	upper, lower *diffDir
	// moved says that the lower directory is not what the layer will be applied
	// over: it has another name there, and all that is in it has to be written.
	moved bool
	// header is written when something in the directory is, nil once it was.
	header *tar.Header
}

func newDiffer(ctx context.Context, w io.Writer, upper Upper, opts DiffOptions) *differ {
	return &differ{
		ctx:  ctx,
		out:  newDiffWriter(ctx, w, opts.SourceDateEpoch),
		opts: opts,
		ns:   upper.Xattrs, override: upper.OverrideStat,
		uid:    uint32(unix.Geteuid()),
		limits: DefaultLimits(),
		links:  map[diffInode]*diffLink{},
		warned: map[string]bool{},
		buf:    make([]byte, 1<<10),
	}
}

// base is the directory that the layer's one will be applied over, nil if there
// is none, or one that the layer hides.
func (n *diffNode) base() *diffDir {
	if n.moved {
		return nil
	}
	return n.lower
}

// root opens both roots anew, so that reading them moves no offset of the caller's.
func (d *differ) root(upper Upper) (n *diffNode, err error) {
	n = &diffNode{}
	defer func() {
		if err != nil {
			err = d.closing(n, err)
		}
	}()
	e, err := d.rootEntry(upper.Dir)
	if err != nil {
		return n, err
	}
	loadErr := d.load(e)
	n.upper = newDiffDir(nil, "", e)
	if loadErr != nil {
		return n, loadErr
	}
	if err := e.rootMarks(upper.Parent != nil || len(upper.Lowers) > 0); err != nil {
		return n, err
	}
	if len(upper.Lowers) > 0 && upper.Parent == nil {
		d.parent = &diffDir{proc: d.proc, fd: -1, stack: newStack(upper.Lowers)}
		n.lower = d.parent
	}
	if upper.Parent == nil {
		return n, nil
	}
	p, err := d.rootEntry(upper.Parent)
	if err != nil {
		return n, err
	}
	d.parent = newDiffDir(nil, "", p)
	n.lower = d.parent
	return n, nil
}

func (d *differ) rootEntry(dir *os.File) (*diffEntry, error) {
	fd, err := openIn(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, diffError(dir.Name(), "open", err)
	}
	e := &diffEntry{path: "/", fd: fd, proc: d.proc, opened: true}
	if err := unix.Fstat(fd, &e.st); err != nil {
		return nil, errors.Join(diffError(dir.Name(), "stat", err), e.close())
	}
	return e, nil
}

// rootMarks: the kernel ignores opaque on a root. In a layer directory it may be
// meant nevertheless.
func (e *diffEntry) rootMarks(hasParent bool) error {
	if (e.marks.opaque && hasParent) || e.marks.redirect != "" || e.marks.metacopy {
		return unsure("/", "has a mark that means nothing on a root")
	}
	return nil
}

// closing ends a node: it closes its directories and joins the errors.
func (d *differ) closing(n *diffNode, err error) error {
	for _, dir := range []*diffDir{n.upper, n.lower} {
		if dir == nil {
			continue
		}
		if closeErr := dir.close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("close %q: %w", n.path, closeErr))
		}
	}
	return err
}

// walk writes what is in a directory.
func (d *differ) walk(n *diffNode) error {
	names, err := n.names()
	if err != nil {
		return err
	}
	names = d.withoutMarkers(names)
	for _, name := range names {
		if err := d.ctx.Err(); err != nil {
			return fmt.Errorf("stopped at %q: %w", joinLayer(n.path, name), err)
		}
		if err := d.child(n, name); err != nil {
			return err
		}
	}
	return nil
}

func (n *diffNode) names() (names []string, err error) {
	if n.upper != nil {
		if names, err = n.upper.names(); err != nil {
			return nil, err
		}
	}
	if n.lower == nil || !n.moved {
		return names, nil
	}
	below, err := n.lower.names()
	if err != nil {
		return nil, err
	}
	names = append(names, below...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// child writes an entry of a directory, and what is below it.
func (d *differ) child(n *diffNode, name string) error {
	path := joinLayer(n.path, name)
	if n.depth >= d.limits.Depth || len(path) > d.limits.PathBytes {
		return fmt.Errorf("%.200q… is nested deeper, or longer, than a layer may have it (%d components, %d bytes): %w",
			path, d.limits.Depth, d.limits.PathBytes, errdefs.ErrResourceExhausted)
	}
	if strings.HasPrefix(name, overlayutil.WhiteoutPrefix) {
		return unsure(path, "has a name that in a layer means that something is deleted")
	}
	lower, err := n.lower.pin(name, path)
	if err != nil {
		return err
	}
	upper, err := n.upper.pin(name, path)
	if err != nil {
		return closeEntries(err, lower)
	}
	return closeEntries(d.entry(n, name, upper, lower), upper, lower)
}

// entry tells by which of the two there are what an entry is.
func (d *differ) entry(n *diffNode, name string, upper, lower *diffEntry) error {
	if deleted, err := d.isDeleted(n, name, upper); deleted || err != nil {
		return errors.Join(err, d.deleted(n, name, lower))
	}
	switch {
	case upper == nil && (lower == nil || !n.moved):
		return nil // it is gone since the directory was listed
	case upper == nil:
		return d.fromLower(n, name, lower)
	case overlayutil.IsWhiteout(&upper.st):
		return d.deleted(n, name, lower)
	case upper.kind() == unix.S_IFSOCK:
		// A socket is nothing without its listener, but what it replaced is gone.
		return d.deleted(n, name, lower)
	}
	if err := d.load(upper); err != nil {
		return err
	}
	if upper.isDir() {
		return d.directory(n, name, upper, lower)
	}
	return d.file(n, name, upper, lower)
}

// fromLower writes what a moved directory brought along.
func (d *differ) fromLower(n *diffNode, name string, lower *diffEntry) error {
	if lower.kind() == unix.S_IFSOCK {
		return nil
	}
	if err := d.load(lower); err != nil {
		return err
	}
	lower.below = true
	if !lower.isDir() {
		return d.write(n, lower, lower)
	}
	sub := &diffNode{parent: n, path: lower.path, depth: n.depth + 1, moved: true}
	h, err := lower.header()
	if err != nil {
		return err
	}
	sub.header = h
	sub.lower = newDiffDir(n.lower, name, lower)
	return d.descend(sub, d.flush(sub))
}

// deleted writes a whiteout, if there is something to delete.
func (d *differ) deleted(n *diffNode, name string, lower *diffEntry) error {
	if n.base() == nil || lower == nil {
		return nil
	}
	if err := d.flush(n); err != nil {
		return err
	}
	return d.out.whiteout(n.path, name)
}

// flush writes the entries of the directories that lead to an entry: an applier
// that does not find them makes up owner and mode.
func (d *differ) flush(n *diffNode) error {
	if n.header == nil {
		return nil
	}
	if err := d.flush(n.parent); err != nil {
		return err
	}
	h := n.header
	n.header = nil
	return d.out.entry(h)
}

// descend walks a directory, unless an error has come up before, and closes it.
func (d *differ) descend(n *diffNode, err error) error {
	for _, dir := range []*diffDir{n.upper, n.lower} {
		if dir != nil && err == nil {
			err = dir.rest()
		}
	}
	if err == nil {
		err = d.walk(n)
	}
	return d.closing(n, err)
}
