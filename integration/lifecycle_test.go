// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"testing"

	"github.com/containerd/errdefs"
)

// The way of every container: import, run, exec, write, stop, remove. The node's
// clean-up then finds the store empty.
func TestLifecycle(t *testing.T) {
	n := newNode(t, settings{})
	ctx := n.ctx()
	image := n.importImage(ctx, sampleRef, sample(t))

	c := n.start(image, spec{id: "life", args: idle})
	expect(t, "the image's files", c.exec(proof), proven)
	c.exec("echo written >/data/new; rm /etc/greeting; mkdir /data/replaced/sub; chown 7:8 /data/keep")
	expect(t, "after writing", c.exec("cat /data/new; stat -c %u:%g /data/keep; test ! -e /etc/greeting && echo gone"),
		"written\n7:8\ngone\n")
	usage, err := n.snapshots().Usage(ctx, "life")
	if err != nil || usage.Inodes == 0 {
		t.Errorf("usage of the container's snapshot: %+v, %v", usage, err)
	}
	c.remove()
	if _, err := n.snapshots().Stat(ctx, "life"); !errdefs.IsNotFound(err) {
		t.Errorf("the snapshot after the container's removal: %v, want not found", err)
	}

	again := n.start(image, spec{id: "again", args: []string{"/bin/sh", "-c", proof}})
	if code := again.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	again.remove()
	expect(t, "a second container sees nothing of the first", again.out.String(), proven)
	n.deleteImage(ctx, sampleRef)
}

// A container that is killed while it writes leaves no more behind than one that ends.
func TestKilledContainer(t *testing.T) {
	n := newNode(t, settings{})
	image := n.importImage(n.ctx(), sampleRef, sample(t))
	c := n.start(image, spec{id: "busy", args: []string{"/bin/sh", "-c",
		"echo go; i=0; while :; do i=$((i+1)); echo $i >/tmp/$i; done"}})
	eventually(t, "the container writes", func() error {
		if c.out.String() == "" {
			return errNotYet
		}
		return nil
	})
	c.remove()
}
