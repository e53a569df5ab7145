// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"path/filepath"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// containerd 1.7 unpacks in its client, with the diff service, and knows no rebase.
func TestContainerd17(t *testing.T) {
	shim := needProgram(t, "containerd17-shim/containerd-shim-runc-v2")
	n := newNode(t, settings{containerd: needProgram(t, "containerd17"), shims: filepath.Dir(shim), version: 2})
	ctx := n.ctx()
	image := n.importByClient(ctx, sampleRef, sample(t))
	c := n.start(image, spec{id: "old", args: idle})
	expect(t, "run by containerd 1.7", c.exec(proof), proven)
	c.exec("echo x >/data/new")
	c.remove()
	n.deleteImage(ctx, sampleRef)
}

// importByClient is `ctr images import --local`: no transfer service, no labels.
func (n *node) importByClient(ctx context.Context, ref string, img v1.Image) containerd.Image {
	n.t.Helper()
	f, err := n.archive(ref, img)
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read from
	if _, err := n.client.Import(ctx, f); err != nil {
		n.t.Fatalf("importing %s: %v", ref, err)
	}
	image, err := n.client.GetImage(ctx, ref)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := image.Unpack(ctx, n.settings.snapshotter); err != nil {
		n.t.Fatalf("unpacking %s: %v", ref, err)
	}
	return image
}

// The same way with containerd 2, whose diff service serves older clients.
func TestUnpackByClient(t *testing.T) {
	n := newNode(t, settings{})
	image := n.importByClient(n.ctx(), sampleRef, sample(t))
	c := n.start(image, spec{id: "local", args: []string{"/bin/sh", "-c", proof}})
	c.wait()
	c.remove()
	expect(t, "unpacked by the client", c.out.String(), proven)
}
