// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// An ordinary user's upper directory keeps owner, mode and type in an attribute, and
// fuse-overlayfs, which writes to it, in one of its own. It also says with files of a
// marked name what overlay says with attributes.

// fuseOverrideStat is fuse-overlayfs' attribute. It is the newer one where both are:
// fuse-overlayfs copies the other one up along with a file.
const fuseOverrideStat = fuseOverlayfs + "override_stat"

// loadOverride takes note of an attribute that says more of a file than the layer may
// carry as one. done says that it is not to be looked at any further.
func (d *differ) loadOverride(e *diffEntry, name string) (done bool, err error) {
	switch {
	case !d.override:
		if name == overrideStat {
			return true, unsure(e.path, "keeps its owner and mode in an attribute")
		}
		return false, nil
	case name == overrideStat, name == fuseOverrideStat:
		return true, d.readOverride(e, name)
	case name == fuseOpaque, name == string(overlayutil.Trusted)+"opaque":
		value, _, err := d.xattr(e, name)
		e.marks.opaque = e.marks.opaque || value == "y"
		return true, err
	case name == overrideSecurity+capabilityXattr:
		value, found, err := d.xattr(e, name)
		if found {
			e.keep(capabilityXattr, value)
		}
		return true, err
	}
	// Numbers of inodes and names of before are of no use to anybody else.
	return strings.HasPrefix(name, fuseOverlayfs), nil
}

func (d *differ) readOverride(e *diffEntry, name string) error {
	value, found, err := d.xattr(e, name)
	if err != nil || !found || (e.override != nil && name == overrideStat) {
		return err
	}
	o, err := parseOverride(value)
	if err != nil {
		return fmt.Errorf("attribute %s of %q: %w", name, e.path, err)
	}
	if e.override != nil && o.typ == 0 {
		o.typ, o.major, o.minor = e.override.typ, e.override.major, e.override.minor
	}
	e.override = &o
	return nil
}

// finishOverride makes the file look as its attributes say, once all are read.
func (d *differ) finishOverride(e *diffEntry) {
	if !d.override {
		return
	}
	if e.override != nil {
		e.override.apply(&e.st)
	}
	if e.kind() == unix.S_IFLNK && e.st.Uid == d.uid {
		// It can't have the attribute, and belongs to the user who runs this like
		// every file. In images it is root's.
		e.st.Uid, e.st.Gid = 0, 0
	}
	if e.isDir() && isThere(e.fd, overlayutil.OpaqueMarker) {
		e.marks.opaque = true
	}
}

// withoutMarkers leaves out of a listing what is no file, and puts names in that are
// only said to be deleted.
func (d *differ) withoutMarkers(names []string) []string {
	if !d.override || !slices.ContainsFunc(names, isMarkerName) {
		return names
	}
	var real []string
	for _, name := range names {
		target, marker := strings.CutPrefix(name, overlayutil.WhiteoutPrefix)
		switch {
		case !marker:
			real = append(real, name)
		case target == "" || strings.HasPrefix(name, overlayutil.ReservedPrefix), strings.HasPrefix(target, "."):
			// .wh..wh..opq, and .wh..opq, which fuse-overlayfs makes beside it.
		default:
			real = append(real, target)
		}
	}
	slices.Sort(real)
	return slices.Compact(real)
}

// isDeleted tells whether a name that the upper directory has no file of, or an empty
// one, is deleted by what another name says.
func (d *differ) isDeleted(n *diffNode, name string, upper *diffEntry) (bool, error) {
	if !d.override || n.upper == nil || (upper != nil && (!upper.isRegular() || upper.st.Size > 0)) {
		return false, nil
	}
	fd, err := n.upper.open()
	return err == nil && hasCompanion(fd, name), err
}

// pin is diffDir.pin for the layers below, where they are not mounted.
func (s *stack) pin(proc int, path string) (*diffEntry, error) {
	st, layer, err := s.find(path)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, diffError(path, "look in the layers below for", err)
	}
	e := &diffEntry{path: path, fd: -1, proc: proc, st: st}
	dir, base := splitLast(path)
	err = s.in(layer, dir, func(dirfd int) (err error) {
		e.fd, err = openIn(dirfd, base, unix.O_PATH)
		return err
	})
	if err != nil {
		return nil, diffError(path, "open in a layer below", err)
	}
	return e, nil
}
