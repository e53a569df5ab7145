// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// netRaw is the value of a security.capability attribute: version 2, effective,
// CAP_NET_RAW permitted. In a user namespace the kernel keeps it as version 3.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// everything are layers, on top of the sample image, of what is hard without privilege.
func everything(t *testing.T) []layertest.Layer {
	t.Helper()
	return append(modelled(t),
		layertest.Layer{
			layertest.Dir("x").Owner(5, 6).Perm(0o2750).Xattr("user.note", "kept"), layertest.Dir("x/sub").Owner(7, 65535).Perm(0o1777),
			layertest.File("x/raw", "raw").Perm(0o755).Xattr("security.capability", netRaw),
			layertest.File("x/setuid", "su").Owner(1000, 50).Perm(0o6755),
			layertest.File("x/linked", "one file"), layertest.Hardlink("x/sub/again", "x/linked"),
			layertest.Device(layertest.TypeChar, "x/null", 1, 3), layertest.Device(layertest.TypeBlock, "x/disk", 7, 0),
			layertest.Fifo("x/fifo").Owner(1, 2), layertest.Symlink("x/to", "sub/again"),
			layertest.Dir("x/hidden"), layertest.File("x/hidden/below", "must not be seen"), layertest.File("x/gone", "must not be seen"),
			layertest.Dir("x/deleted"), layertest.File("x/deleted/f", "must not be seen"), layertest.File("x/before", "a file"),
		},
		layertest.Layer{
			// No entries for x and x/sub, whose owners and modes stay those of below.
			layertest.Whiteout("x/gone"), layertest.Whiteout("x/deleted"), layertest.File("x/sub/new", "new").At(1_100_000_000, 123_456_789),
			layertest.Dir("x/hidden").Owner(8, 9), layertest.Opaque("x/hidden"), layertest.File("x/hidden/seen", "seen"),
		},
		layertest.Layer{
			// A link to a file of a layer below, and a directory where a file was.
			layertest.Hardlink("x/third", "x/linked").Perm(0o600),
			layertest.Whiteout("x/before"), layertest.Dir("x/before"), layertest.File("x/before/now", "a directory"),
			layertest.File("implicit/d/f", "with nothing below"),
		},
	)
}

// Rootless containerd, in a user namespace that an ordinary user made, pulls, runs,
// commits and runs the commit on Strata's snapshots with Strata's differ.
func TestRootless(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			if !rootless(t, fstype) {
				return
			}
			layers := everything(t)
			ref := startRegistry(t) + "/everything:1"
			push(t, ref, imageOf(t, layers))
			for name, s := range map[string]settings{
				"in order":                {},
				"in parallel":             {unpacks: 3},
				"content over the socket": {unpacks: 3, daemon: "content_root = '/nowhere'\n"},
			} {
				t.Run(name, func(t *testing.T) { testRootless(t, s, ref, truth(t, layers)) })
			}
		})
	}
}

func testRootless(t *testing.T, s settings, ref string, want layertest.Tree) {
	n := newRootlessNode(t, s)
	base := n.pull(n.ctx(), ref)
	compareTrees(t, "the image", want, n.mergedTree(n.ctx(), base))
	c := n.startRootless(base, "origin")
	expect(t, "the image in a container", c.exec(proof), proven)
	c.exec(change + "\n" + rootlessChange)
	seen := c.exec(lookAtChange)
	commit := n.commit(n.ctx(), c, base, "strata.test/commit:1")
	compareTrees(t, "the commit", n.end(c), n.mergedTree(n.ctx(), commit))
	again := n.startRootless(commit, "commit")
	expect(t, "in the committed image", again.exec(lookAtChange), seen)
	again.remove()
	n.checkDiffer(s)
}

// rootlessChange touches what everything brought: opaque and deleted directories, one
// of several names, a set-user-ID bit, an owner.
const rootlessChange = `rm /x/setuid /x/third; rm -r /x/hidden; mkdir /x/hidden; echo 2 >/x/hidden/anew
chown 65535:1 /x/sub/new; chmod 4755 /x/raw; ln /x/linked /x/more; rm -r /x/before; echo >/x/before`

// startRootless runs a container without control groups, which an ordinary user can't
// make.
func (n *node) startRootless(image containerd.Image, id string) *container {
	n.t.Helper()
	return n.start(image, spec{id: id, args: idle, options: []oci.SpecOpts{oci.WithCgroup("")}})
}

// end stops and removes a container, and gives what it would have seen next.
func (n *node) end(c *container) layertest.Tree {
	n.t.Helper()
	if err := c.task.Kill(c.ctx, syscall.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
	c.wait()
	if _, err := c.task.Delete(c.ctx); err != nil {
		n.t.Fatal(err)
	}
	mounts, err := n.snapshots().Mounts(c.ctx, c.ID())
	if err != nil {
		n.t.Fatal(err)
	}
	tree := n.treeOf(c.ctx, mounts)
	n.report("deleting a container", c.Delete(c.ctx, containerd.WithSnapshotCleanup))
	return tree
}

// containerd's own differ, which applies through a mount in a user namespace, comes to
// the same image on Strata's mounts, one layer after another.
func TestRootlessWalking(t *testing.T) {
	if !rootless(t, "ext4") {
		return
	}
	layers := everything(t)
	n, image := pullWalking(t, settings{differ: "walking"}, layers)
	compareTrees(t, "the image", truth(t, layers), n.mergedTree(n.ctx(), image))
	c := n.startRootless(image, "walked")
	expect(t, "the image in a container", c.exec(proof), proven)
	c.remove()
}

// In parallel it does not: what it can't see, it can't delete. That is why containerd's
// own snapshotter does not declare "rebase" in a user namespace. Where Strata's is given
// it there with that differ, Commit refuses: better no image than one with its deleted
// files back.
func TestRootlessWalkingInParallel(t *testing.T) {
	if !rootless(t, "ext4") {
		return
	}
	ref := startRegistry(t) + "/everything:1"
	layers := everything(t)
	top := len(layers) - 1
	layers[top] = layers[top][1:] // the link to a layer below, which it refuses itself
	push(t, ref, imageOf(t, layers))
	n := newRootlessNode(t, settings{differ: "walking", unpacks: 3})
	source, err := registry.NewOCIRegistry(n.ctx(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.transfer(n.ctx(), ref, source); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("pulling: %v, want a failed precondition", err)
	}
}

func pullWalking(t *testing.T, s settings, layers []layertest.Layer) (*node, containerd.Image) {
	t.Helper()
	ref := startRegistry(t) + "/everything:1"
	push(t, ref, imageOf(t, layers))
	n := newRootlessNode(t, s)
	return n, n.pull(n.ctx(), ref)
}
