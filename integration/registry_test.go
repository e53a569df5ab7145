// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"testing"
)

var errNotYet = errors.New("not yet")

// A pull goes through the transfer service, which gives snapshotters the labels of
// remote images; an import does not.
func TestPull(t *testing.T) {
	n := newNode(t, settings{})
	ref := startRegistry(t) + "/sample:1"
	push(t, ref, sample(t))
	image := n.pull(n.ctx(), ref)
	c := n.start(image, spec{id: "pulled", args: []string{"/bin/sh", "-c", proof}})
	if code := c.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	c.remove()
	expect(t, "the pulled image", c.out.String(), proven)
}

// A second pull finds every layer by its chain and changes nothing.
func TestPullTwice(t *testing.T) {
	n := newNode(t, settings{})
	host := startRegistry(t)
	push(t, host+"/sample:1", sample(t))
	push(t, host+"/other:2", sample(t))
	n.pull(n.ctx(), host+"/sample:1")
	before := n.storeDirs()
	n.pull(n.ctx(), host+"/other:2")
	if after := n.storeDirs(); len(after) != len(before) {
		t.Errorf("the store after pulling the same layers under another name: %v, before: %v", after, before)
	}
}
