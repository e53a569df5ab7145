// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"testing"
)

// Strata is never in the data path: a container notices neither its crash nor its
// restart, and what was acknowledged before the crash is there after it.
func TestCrashUnderRunningContainer(t *testing.T) {
	needStrata(t)
	n := newNode(t, settings{})
	ctx := n.ctx()
	image := n.importImage(ctx, sampleRef, sample(t))
	c := n.start(image, spec{id: "survivor", args: idle})
	c.exec("echo one >/data/before")

	n.killStrata()
	expect(t, "while Strata is dead", c.exec("cat /data/before; echo two >/data/during; cat /data/during"), "one\ntwo\n")
	n.startStrata()
	n.waitSnapshotter()
	expect(t, "after the restart", c.exec("cat /data/before /data/during"), "one\ntwo\n")

	second := n.start(image, spec{id: "second", args: []string{"/bin/sh", "-c", proof}})
	second.wait()
	second.remove()
	expect(t, "a container started after the restart", second.out.String(), proven)
	c.remove()
	n.deleteImage(ctx, sampleRef)
}

// An orderly restart while nothing runs keeps all images, too.
func TestRestart(t *testing.T) {
	needStrata(t)
	n := newNode(t, settings{})
	image := n.importImage(n.ctx(), sampleRef, sample(t))
	before := n.layerDirs()
	n.strata.stop(t)
	n.startStrata()
	n.waitSnapshotter()
	if after := n.layerDirs(); len(after) != len(before) {
		t.Errorf("layers %v after the restart, %v before", after, before)
	}
	c := n.start(image, spec{id: "after", args: []string{"/bin/sh", "-c", proof}})
	c.wait()
	c.remove()
	expect(t, "after the restart", c.out.String(), proven)
}

// A crash in the middle of imports leaves a store on which the same imports succeed.
func TestCrashDuringImport(t *testing.T) {
	needStrata(t)
	n := newNode(t, settings{})
	ctx, img := n.ctx(), sample(t)
	imported := make(chan error, 1)
	go func() {
		_, err := n.tryImport(ctx, sampleRef, img)
		imported <- err
	}()
	eventually(t, "Strata has begun", func() error {
		if len(n.storeDirs()) == 0 {
			return errNotYet
		}
		return nil
	})
	n.killStrata()
	n.startStrata()
	n.waitSnapshotter()
	if err := <-imported; err != nil {
		t.Logf("the import that the crash met: %v", err)
	}
	image := n.importImage(ctx, sampleRef, img)
	c := n.start(image, spec{id: "later", args: []string{"/bin/sh", "-c", proof}})
	c.wait()
	c.remove()
	expect(t, "the image after the crash", c.out.String(), proven)
}
