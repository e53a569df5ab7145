// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"errors"

	"github.com/strata-snapshotter/strata/overlayutil"
)

// diffInode is a file with several names. A file of the parent may have the
// numbers of one in the upper.
type diffInode struct {
	below    bool
	dev, ino uint64
}

// diffLink is the name under which such a file is in the layer, and how many
// names there may still come.
type diffLink struct {
	path string
	left uint64
}

// file writes what is not a directory, unless the parent has just the same.
func (d *differ) file(n *diffNode, name string, upper, lower *diffEntry) error {
	if upper.marks.whiteout && upper.isRegular() {
		if upper.st.Size > 0 {
			return unsure(upper.path, "is marked as a whiteout and has content")
		}
		return d.deleted(n, name, lower)
	}
	if !upper.marks.metacopy {
		return d.writeChanged(n, upper, upper, lower)
	}
	content, err := d.contentBelow(n, name, upper)
	if err != nil {
		return err
	}
	return closeEntries(d.writeChanged(n, upper, content, lower), content)
}

// contentBelow finds the content of a file whose metadata alone were copied up
// (metacopy=on).
func (d *differ) contentBelow(n *diffNode, name string, upper *diffEntry) (*diffEntry, error) {
	if d.ns != overlayutil.Trusted {
		return nil, unsure(upper.path, "has metadata only, which overlay does not have with userxattr")
	}
	from, rel := n.lower, name
	if upper.marks.redirect != "" {
		var err error
		if from, rel, err = d.redirected(n, upper); err != nil {
			return nil, err
		}
	}
	e, err := from.pin(rel, upper.path)
	if err != nil {
		return nil, err
	}
	if e == nil || !e.isRegular() || e.st.Size != upper.st.Size {
		return nil, errors.Join(unsure(upper.path, "has its content in %q of the layers below, which have no such file", rel), e.close())
	}
	if err := e.open(); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// writeChanged leaves out what the parent has, except for hard links: if another
// name of the file is new, its link has to lead to an entry of this layer. And if
// the parent's file has other names, this one is no longer one of them.
func (d *differ) writeChanged(n *diffNode, upper, content, lower *diffEntry) error {
	if n.base() != nil && lower != nil && upper.st.Nlink == 1 && lower.st.Nlink == 1 {
		same, err := d.unchanged(upper, content, lower)
		if err != nil || same {
			return err
		}
	}
	return d.write(n, upper, content)
}

// write writes an entry: the first of a file's names with the content, the others
// as links to it.
func (d *differ) write(n *diffNode, e, content *diffEntry) error {
	h, err := e.header()
	if err != nil {
		return err
	}
	if err := d.flush(n); err != nil {
		return err
	}
	first := d.linkTo(e)
	if first != "" {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return d.out.entry(h)
	}
	if !e.isRegular() {
		return d.out.entry(h)
	}
	h.Size = content.st.Size
	if err := d.out.entry(h); err != nil {
		return err
	}
	return d.out.content(content, h.Size)
}

// linkTo returns the path at which a file is in the layer already, or notes that
// it will be now. A file whose other names do not come up is one like any other.
func (d *differ) linkTo(e *diffEntry) string {
	if e.st.Nlink < 2 {
		return ""
	}
	inode := diffInode{below: e.below, dev: e.st.Dev, ino: e.st.Ino}
	link := d.links[inode]
	if link == nil {
		d.links[inode] = &diffLink{path: e.path, left: uint64(e.st.Nlink) - 1}
		return ""
	}
	if link.left--; link.left == 0 {
		delete(d.links, inode)
	}
	return link.path
}
