// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"slices"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// changes is the directory that holds all that one stack shows differently from
// another.
type changes struct {
	dir    string
	xattrs overlayutil.XattrNamespace
	// lowers are the directories of the other stack, top first, of an ordinary user who
	// can't have them mounted. nil: they can be.
	lowers []string
}

// changesOf finds the directory that upper has on top of exactly what lower is: an
// active snapshot's upper directory, or the topmost layer of a committed one's
// view. Both mounts must be plain overlays, or binds, of directories of the store.
func (d *Differ) changesOf(lower, upper []mount.Mount) (c changes, ok bool) {
	below, ok := d.stackOf(lower)
	if !ok || below.upper != "" {
		return c, false
	}
	above, ok := d.stackOf(upper)
	if !ok {
		return c, false
	}
	stack := above.lowers
	if above.upper != "" {
		stack = append([]string{above.upper}, stack...)
	}
	if !d.ownsAll(stack) || !sameLayers(stack[1:], below.lowers) {
		return c, false
	}
	c = changes{dir: stack[0], xattrs: above.xattrs}
	if above.override {
		c.lowers = below.lowers
	}
	return c, true
}

// stackOf reads the mounts of one snapshot. The store binds what needs no overlay:
// the upper directory of an active snapshot of nothing, and an empty directory.
func (d *Differ) stackOf(mounts []mount.Mount) (overlay, bool) {
	if o, ok := overlayOf(mounts); ok {
		return o, o.known && len(o.lowers) > 0
	}
	if len(mounts) != 1 || mounts[0].Type != "bind" || !onlyOptions(mounts[0].Options, "rw", "ro", "bind", "rbind") {
		return overlay{}, false
	}
	return overlay{lowers: []string{mounts[0].Source}, xattrs: overlayutil.Trusted}, true
}

func onlyOptions(options []string, known ...string) bool {
	return !slices.ContainsFunc(options, func(o string) bool { return !slices.Contains(known, o) })
}

func (d *Differ) ownsAll(dirs []string) bool {
	return d.cfg.Owns != nil && !slices.ContainsFunc(dirs, func(dir string) bool { return !d.cfg.Owns(dir) })
}

// sameLayers compares stacks. A view of one layer has an empty directory below it,
// and of none shows one: the kernel does not mount an overlay of fewer.
func sameLayers(a, b []string) bool {
	return slices.Equal(withoutEmpty(a), withoutEmpty(b))
}

func withoutEmpty(stack []string) []string {
	if n := len(stack); n > 0 && allEmpty(stack[n-1:]) {
		return stack[:n-1]
	}
	return stack
}
