// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"path/filepath"
	"testing"
)

// A containerd with Strata compiled in by a blank import runs containers on it, with
// no daemon and no proxy.
func TestCompiledIntoContainerd(t *testing.T) {
	needStrata(t)
	if env.missing != nil {
		unable(t, env.missing.Error())
	}
	program := filepath.Join(t.TempDir(), "containerd-with-strata")
	if err := goBuild(program, "./cmd/containerd-with-strata", "-tags", "no_btrfs"); err != nil {
		t.Fatalf("building: %v", err)
	}
	n := newNode(t, settings{containerd: program, plugin: true})
	ctx := n.ctx()
	image := n.importImage(ctx, sampleRef, sample(t))
	if len(n.layerDirs()) == 0 {
		t.Errorf("no layers below %s: is it Strata that unpacked?", n.root)
	}
	c := n.start(image, spec{id: "builtin", args: idle})
	expect(t, "on the compiled-in snapshotter", c.exec(proof), proven)
	c.remove()
	n.deleteImage(ctx, sampleRef)
}
