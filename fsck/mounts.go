// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// mounts looks for overlays of what metadata.db does not name.
func (c *checker) mounts() {
	for _, dir := range slices.Sorted(maps.Keys(c.used)) {
		base, number, _ := strings.Cut(dir, "/")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || c.db.SnapshotsUnreadable[n] {
			continue
		}
		known := c.isLayer(n)
		if base == "snapshots" {
			known = c.db.Snapshots[n].Kind == snapshots.KindActive
		}
		if !known {
			c.add(CodeMountUnknown, Subject{Number: n, Path: c.used[dir][0]}, fmt.Sprintf("a mount is made of %s, which metadata.db does not name", dir))
		}
	}
}
