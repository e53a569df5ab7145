// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"strings"
	"testing"
)

// fuseSettings have fuse-overlayfs mount where the kernel could.
var fuseSettings = settings{unpacks: 3, daemon: "[snapshotter]\nmount_program = 'fuse-overlayfs'\n"}

// Rootless containerd pulls, runs, commits and runs the commit where fuse-overlayfs
// mounts. The layers leave out what fuse-overlayfs 1.10 loses when it copies a directory
// up: set-group-ID bits. What a commit looks like is compared by what a container of it
// sees: containerd's own code walks the mounts, and rounds times.
func TestRootlessFuse(t *testing.T) {
	if !rootless(t, "ext4") {
		return
	}
	layers := everything(t)
	top := len(layers) - 1
	layers[top] = layers[top][1:] // the link to a layer below, for which /x is copied up
	ref := startRegistry(t) + "/everything:1"
	push(t, ref, imageOf(t, layers))
	n := newRootlessNode(t, fuseSettings)
	base := n.pull(n.ctx(), ref)
	compareTrees(t, "the image", truth(t, layers), n.mergedTree(n.ctx(), base))
	c := n.startRootless(base, "origin")
	expect(t, "the image in a container", c.exec(proof), proven)
	expect(t, "the root's file system", strings.TrimSpace(c.exec("grep ' / ' /proc/mounts | cut -d' ' -f3")), "fuse.fuse-overlayfs")
	c.exec(change)
	seen := c.exec(lookAtChange)
	commit := n.commit(n.ctx(), c, base, "strata.test/commit:1")
	n.end(c)
	again := n.startRootless(commit, "commit")
	expect(t, "in the committed image", again.exec(lookAtChange), seen)
	again.remove()
}
