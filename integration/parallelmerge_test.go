// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// mergeCase is an image of the archive package's merge cases, and its right result.
type mergeCase struct {
	ID, Note string
	Layers   []layertest.Layer
	Expect   struct {
		Tree  layertest.Tree
		Error bool
	}
}

func readMergeCases(t *testing.T) []mergeCase {
	t.Helper()
	data, err := os.ReadFile("../archive/testdata/merge/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []mergeCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		c.adjust()
	}
	return cases
}

// adjust takes out what is not wanted: leftovers of aufs, which the cases keep, and, in
// a user namespace, overlay's own attributes there.
func (c *mergeCase) adjust() {
	delete(c.Expect.Tree, "/.wh..wh.plnk")
	delete(c.Expect.Tree, "/.wh..wh.plnk/1.2")
	if !isRootless() {
		return
	}
	for p, line := range c.Expect.Tree {
		c.Expect.Tree[p] = strings.Replace(line, ` x{user.overlay.opaque="y"}`, "", 1)
	}
}

// Every merge case as an image that containerd pulls and unpacks: one layer after
// another, and all at once with nobody knowing its parent.
func TestMergeCases(t *testing.T) {
	needStrata(t)
	cases := readMergeCases(t)
	t.Run("in order", func(t *testing.T) { testMergeCases(t, newNode(t, settings{}), cases) })
	t.Run("in parallel", func(t *testing.T) { testMergeCases(t, newNode(t, settings{unpacks: 3}), cases) })
}

// The same with a rootless containerd.
func TestRootlessMergeCases(t *testing.T) {
	cases := readMergeCases(t)
	for name, unpacks := range map[string]int{"in order": 0, "in parallel": 3} {
		t.Run(name, func(t *testing.T) {
			if rootless(t, "ext4") {
				testMergeCases(t, newRootlessNode(t, settings{unpacks: unpacks}), cases)
			}
		})
	}
}

func testMergeCases(t *testing.T, n *node, cases []mergeCase) {
	host, parents := startRegistry(t), n.watchParents()
	for _, c := range cases {
		t.Run(c.ID, func(t *testing.T) {
			// Failures are this case's, not the node's as a whole.
			whole := n.t
			n.t = t
			defer func() { n.t = whole }()
			n.testMergeCase(host+"/"+c.ID+":1", c)
		})
	}
	// That the order was the one that the test is about.
	if parents, parallel := parents(), n.settings.unpacks > 1; (parents == 0) != parallel {
		t.Errorf("parallel: %v, but the parents of %d snapshots were known", parallel, parents)
	}
}

func (n *node) testMergeCase(ref string, c mergeCase) {
	ctx := n.ctx()
	push(n.t, ref, imageOf(n.t, c.Layers))
	source, err := registry.NewOCIRegistry(ctx, ref)
	if err != nil {
		n.t.Fatal(err)
	}
	image, err := n.transfer(ctx, ref, source)
	switch {
	case c.Expect.Error && err == nil:
		n.t.Fatalf("%s\nnot refused", c.Note)
	case c.Expect.Error && !errdefs.IsInvalidArgument(err):
		n.t.Fatalf("%s\nrefused without ErrInvalidArgument: %v", c.Note, err)
	case c.Expect.Error:
		return
	case err != nil:
		n.t.Fatalf("%s\n%v", c.Note, err)
	}
	compareTrees(n.t, c.Note, c.Expect.Tree, n.mergedTree(ctx, image))
	// The next image may have the same layers, which would then be there already.
	n.deleteImage(ctx, ref)
}

// watchParents counts the snapshots that containerd unpacks into and names a parent of,
// until the function it returns is called. With parallel unpack there are none.
func (n *node) watchParents() (count func() int) {
	n.t.Helper()
	const end, endTopic = "end-of-watch", "/snapshot/remove"
	ctx := n.ctx()
	envelopes, failed := n.client.Subscribe(ctx,
		`topic=="/snapshot/prepare",event.parent,event.key~="^`+snapshots.UnpackKeyPrefix+`"`,
		`topic=="`+endTopic+`",event.key=="`+end+`"`)
	parents, over := 0, make(chan error, 1)
	go func() {
		for ; ; parents++ {
			select {
			case err := <-failed:
				over <- err
				return
			case e := <-envelopes:
				if e.Topic == endTopic {
					over <- nil
					return
				}
			}
		}
	}()
	return func() int {
		n.t.Helper()
		if _, err := n.snapshots().Prepare(ctx, end, ""); err != nil {
			n.t.Fatal(err)
		}
		n.report("removing a snapshot", n.snapshots().Remove(ctx, end))
		if err := <-over; err != nil {
			n.t.Fatalf("watching containerd's events: %v", err)
		}
		return parents
	}
}
