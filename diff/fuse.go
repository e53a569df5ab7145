// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/strata-snapshotter/strata/overlayutil"
)

// readOnlyFuse makes lower directories of the upper ones of fuse-overlayfs, as
// containerd's own code does for the kernel's overlays only. A second fuse-overlayfs
// with the same work directory would begin by emptying it, under the hands of the first.
func readOnlyFuse(mounts []mount.Mount) []mount.Mount {
	mounts = slices.Clone(mounts)
	for i, m := range mounts {
		if m.Type == overlayutil.FuseOverlayfs {
			mounts[i].Options = withoutUpper(m.Options)
		}
	}
	return mounts
}

func withoutUpper(options []string) []string {
	var lower, upper string
	kept := make([]string, 0, len(options))
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "lowerdir":
			lower = value
		case "upperdir":
			upper = overlayutil.EscapeLower(value)
		case "workdir":
		default:
			kept = append(kept, o)
		}
	}
	if upper != "" {
		lower = upper + ":" + lower
	}
	return append(kept, "lowerdir="+lower)
}
