// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/strata-snapshotter/strata/internal/testimage"
)

// An image's removal with a synchronous collection takes its own layers with it, and
// only those: layers that another image has stay.
func TestRemovedImageTakesItsLayers(t *testing.T) {
	needStrata(t)
	n := newNode(t, settings{})
	ctx, shared := n.ctx(), base(t)
	n.importImage(ctx, "strata.test/a:1", build(t, shared, testimage.Layer{testimage.File("a", "a")}))
	onlyA := n.layerDirs()
	b := n.importImage(ctx, "strata.test/b:1", build(t, shared, testimage.Layer{testimage.File("b", "b")}))
	if all := n.layerDirs(); len(all) != len(onlyA)+1 {
		t.Errorf("layers %v, then %v: the shared one is stored twice", onlyA, all)
	}
	n.deleteImage(ctx, "strata.test/a:1")
	eventually(t, "the deleted image's own layer is gone", func() error {
		if left := n.layerDirs(); len(left) != len(onlyA) {
			return fmt.Errorf("layers %v", left)
		}
		return nil
	})
	c := n.start(b, spec{id: "b", args: []string{"/bin/sh", "-c", "cat /b; test ! -e /a"}})
	c.wait()
	c.remove()
	expect(t, "the image that stays", c.out.String(), "b")
}

// Imports and removals with collections at the same time: images that stay, stay whole.
func TestCollectionDuringImports(t *testing.T) {
	n := newNode(t, settings{})
	shared := base(t)
	keep := n.importImage(n.ctx(), "strata.test/keep:1", build(t, shared, testimage.Layer{testimage.File("keep", "kept\n")}))
	group, ctx := errgroup.WithContext(n.ctx())
	for worker := range 3 {
		group.Go(func() error {
			for round := range 5 {
				ref := fmt.Sprintf("strata.test/w%d:%d", worker, round)
				img, err := testimage.Build(nil, shared, testimage.Layer{testimage.File("x", ref)})
				if err != nil {
					return err
				}
				if _, err := n.tryImport(ctx, ref, img); err != nil {
					return fmt.Errorf("importing %s: %w", ref, err)
				}
				if err := n.tryDelete(ctx, ref); err != nil {
					return fmt.Errorf("deleting %s: %w", ref, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	c := n.start(keep, spec{id: "keep", args: []string{"/bin/cat", "/keep"}})
	c.wait()
	c.remove()
	expect(t, "the image that stays", c.out.String(), "kept")
}
