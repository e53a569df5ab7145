// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
)

// Two containerd namespaces share the snapshotter, but neither may take anything away
// from the other.
func TestTwoNamespaces(t *testing.T) {
	n := newNode(t, settings{})
	first, second := n.ctx(), n.in(n.addNamespace("b"))
	img := sample(t)
	one := n.importImage(first, sampleRef, img)
	two := n.importImage(second, sampleRef, img)

	running := n.start(two, spec{id: "b", ctx: second, args: idle})
	c := n.start(one, spec{id: "a", ctx: first, args: []string{"/bin/sh", "-c", proof}})
	c.wait()
	c.remove()
	expect(t, "in the first namespace", c.out.String(), proven)
	n.deleteImage(first, sampleRef)

	expect(t, "running in the second namespace", running.exec(proof), proven)
	running.remove()
	later := n.start(two, spec{id: "b2", ctx: second, args: []string{"/bin/sh", "-c", proof}})
	later.wait()
	later.remove()
	expect(t, "started in the second namespace", later.out.String(), proven)
}

// The same container name in both is two containers.
func TestSameNameInTwoNamespaces(t *testing.T) {
	n := newNode(t, settings{})
	img := sample(t)
	var all []*container
	for _, ns := range []string{n.namespace, n.addNamespace("b")} {
		ctx := n.in(ns)
		all = append(all, n.start(n.importImage(ctx, sampleRef, img), spec{id: "same", ctx: ctx, args: idle}))
		all[len(all)-1].exec("echo " + ns + " >/whose")
	}
	for i, c := range all {
		expect(t, "own file", c.exec("cat /whose"), n.namespaces[i])
	}
	if err := all[0].task.Kill(all[0].ctx, 9, containerd.WithKillAll); err != nil {
		t.Fatal(err)
	}
	all[0].remove()
	expect(t, "after the other's removal", all[1].exec("cat /whose"), n.namespaces[1])
}
