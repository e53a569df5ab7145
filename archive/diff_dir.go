// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"strings"

	"github.com/strata-snapshotter/strata/overlayutil"
)

// directory writes a directory of the upper: its entry now if it is new or has
// changed, otherwise once something in it is written.
func (d *differ) directory(n *diffNode, name string, upper, lower *diffEntry) error {
	sub := &diffNode{parent: n, path: upper.path, depth: n.depth + 1, moved: n.moved}
	h, err := upper.header()
	if err != nil {
		return err
	}
	sub.header = h
	pending, err := d.keepsParent(n, upper, lower)
	if err != nil {
		return err
	}
	if sub.lower, err = d.lowerOf(n, sub, name, upper, lower); err != nil {
		return err
	}
	if upper.hidesLower() && n.base() != nil && lower.isDir() {
		err = d.hideLower(n, sub, name, upper, lower)
	} else if !pending {
		err = d.flush(sub)
	}
	sub.upper = newDiffDir(n.upper, name, upper)
	// Not left to the caller: descriptors would add up on the way down.
	return d.descend(sub, closeEntries(err, lower))
}

// hidesLower tells whether a directory shows nothing of the one that the layers
// below have under the same name.
func (e *diffEntry) hidesLower() bool {
	return e.marks.opaque || e.marks.redirect != ""
}

// hideLower writes a directory that shows nothing of the one below. Appliers that
// merge the two on a plain directory keep the attributes of the one that is
// there; only a whiteout before makes them go.
func (d *differ) hideLower(n, sub *diffNode, name string, upper, lower *diffEntry) error {
	if err := d.load(lower); err != nil {
		return err
	}
	for attr := range lower.xattrs {
		if _, kept := upper.xattrs[attr]; kept {
			continue
		}
		if err := d.deleted(n, name, lower); err != nil {
			return err
		}
		break
	}
	if err := d.flush(sub); err != nil {
		return err
	}
	return d.out.marker(sub.path, overlayutil.OpaqueMarker)
}

// keepsParent tells whether a directory is that of the parent, as far as its own
// entry goes.
func (d *differ) keepsParent(n *diffNode, upper, lower *diffEntry) (bool, error) {
	if n.base() == nil || !lower.isDir() || upper.hidesLower() {
		return false, nil
	}
	return d.unchanged(upper, upper, lower)
}

// lowerOf opens the directory that overlay merges a directory of the upper with
// (Documentation/filesystems/overlayfs.rst: opaque, redirect_dir). It may take the
// descriptor of lower.
func (d *differ) lowerOf(n, sub *diffNode, name string, upper, lower *diffEntry) (dir *diffDir, err error) {
	switch {
	case upper.marks.opaque:
		return nil, nil
	case upper.marks.redirect != "":
		sub.moved = true
		return d.movedFrom(n, upper)
	case !lower.isDir():
		return nil, nil
	}
	if err := lower.open(); err != nil {
		return nil, err
	}
	return newDiffDir(n.lower, name, lower), nil
}

func (d *differ) movedFrom(n *diffNode, upper *diffEntry) (*diffDir, error) {
	from, rel, err := d.redirected(n, upper)
	if err != nil {
		return nil, err
	}
	e, err := from.pin(rel, upper.path)
	if err != nil {
		return nil, err
	}
	if !e.isDir() {
		return nil, errors.Join(unsure(upper.path, "was moved from %q, which the layers below have no directory of", rel), e.close())
	}
	if err := e.open(); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return newDiffDir(from, rel, e), nil
}

// redirected returns where the layers below have what an entry stands for: an
// absolute redirect is a path from their root, a relative one a name in the lower
// directory of the one that the entry is in.
func (d *differ) redirected(n *diffNode, e *diffEntry) (from *diffDir, rel string, err error) {
	rel, absolute := strings.CutPrefix(e.marks.redirect, "/")
	from = n.lower
	if absolute {
		from = d.parent
	}
	switch {
	case d.ns != overlayutil.Trusted:
		return nil, "", unsure(e.path, "has a redirect, which overlay does not follow with userxattr")
	case from == nil:
		return nil, "", unsure(e.path, "was moved from %q, but there is no layer below to look in", rel)
	case rel == "", !absolute && strings.ContainsRune(rel, '/'):
		return nil, "", unsure(e.path, "has the redirect %q that is not understood", e.marks.redirect)
	}
	return from, rel, nil
}
