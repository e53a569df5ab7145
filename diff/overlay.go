// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// overlay is what an overlay mount is made of.
type overlay struct {
	upper  string   // empty for a read-only one
	lowers []string // top first
	xattrs overlayutil.XattrNamespace
	known  bool // all of its options are such that they don't change what is shown
	// override: owners and modes are in attributes, and fuse-overlayfs shows them.
	override bool
}

// harmless are names of options that say how an overlay works, not what it shows.
var harmless = map[string]bool{
	"rw": true, "ro": true, "workdir": true, "index": true, "xino": true, "redirect_dir": true, "metacopy": true,
	"nfs_export": true, "uuid": true, "volatile": true, "fsync": true,
}

// readsOverrides is the option by which fuse-overlayfs shows what attributes say of
// owners and modes. Strata's snapshotter sets it where it keeps them there.
const readsOverrides = "xattr_permissions=2"

func isOverride(m mount.Mount) bool {
	return m.Type == "fuse3.fuse-overlayfs" && slices.Contains(m.Options, readsOverrides)
}

// overlayOf reads a single overlay mount.
func overlayOf(mounts []mount.Mount) (o overlay, ok bool) {
	if len(mounts) != 1 || (mounts[0].Type != "overlay" && !isOverride(mounts[0])) {
		return o, false
	}
	o.override = isOverride(mounts[0])
	o.xattrs, o.known = overlayutil.Trusted, true
	for _, option := range mounts[0].Options {
		name, value, _ := strings.Cut(option, "=")
		switch {
		// An escape or a second option in it: left to those who mount it.
		case strings.ContainsAny(option, `\,`):
			return o, false
		case name == "upperdir":
			o.upper = value
		case name == "lowerdir":
			o.lowers = strings.Split(value, ":")
			o.known = o.known && !slices.Contains(o.lowers, "") // "::" begins data-only layers
		case name == "userxattr", option == readsOverrides:
			o.xattrs = overlayutil.User
		case !harmless[name]:
			o.known = false
		}
	}
	return o, true
}
