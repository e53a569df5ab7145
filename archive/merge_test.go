// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// mergeCase is an image of testdata/merge/cases.json and what it must look like.
type mergeCase struct {
	ID, Note   string
	Layers     []layertest.Layer
	Deliberate string // where naive extraction onto one directory differs
	Expect     struct {
		Tree  layertest.Tree
		Error bool
	}
}

// aufsCase is the one case whose tree is not what we want: it keeps the
// directory .wh..wh.plnk of aufs, as containerd does. It is a leftover that no
// image means, and so is what is in it.
const aufsCase = "wh-aufs"

func readMergeCases(t *testing.T) []mergeCase {
	t.Helper()
	data, err := os.ReadFile("testdata/merge/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []mergeCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 72 {
		t.Fatalf("%d cases, not 72", len(cases))
	}
	for _, c := range cases {
		if c.ID == aufsCase {
			delete(c.Expect.Tree, "/.wh..wh.plnk")
			delete(c.Expect.Tree, "/.wh..wh.plnk/1.2")
		}
	}
	return cases
}

// orders are the ways in which an image comes to be a chain.
var orders = []struct {
	name  string
	chain func(*house, [][]byte) (chain, error)
}{
	{"sequential", (*house).sequential},
	{"parallel", (*house).parallel},
	{"shared", (*house).shared},
	{"replayed", (*house).replayed},
}

func TestMerge(t *testing.T) {
	for _, c := range readMergeCases(t) {
		t.Run(c.ID, func(t *testing.T) {
			for _, order := range orders {
				t.Run(order.name, func(t *testing.T) { c.test(t, kernelHouse(t), order.chain) })
			}
		})
	}
}

// TestMergeInUserNS is the same with overlay's marks in user.overlay.*.
func TestMergeInUserNS(t *testing.T) {
	if !testutil.InUserNS(t, 0) {
		return
	}
	for _, c := range readMergeCases(t) {
		c.dropOverlayXattrs()
		for _, order := range orders {
			t.Run(c.ID+"/"+order.name, func(t *testing.T) {
				c.test(t, newHouse(t, testutil.Tmpfs(t), archive.Options{}), order.chain)
			})
		}
	}
}

// dropOverlayXattrs takes user.overlay.* out of what is expected: there they are
// overlay's own, and not taken from a tar.
func (c *mergeCase) dropOverlayXattrs() {
	for p, line := range c.Expect.Tree {
		c.Expect.Tree[p] = strings.Replace(line, ` x{user.overlay.opaque="y"}`, "", 1)
	}
}

func (c *mergeCase) test(t *testing.T, h *house, order func(*house, [][]byte) (chain, error)) {
	t.Helper()
	blobs, err := tars(c.Layers)
	if err != nil {
		t.Fatal(err)
	}
	stack, err := order(h, blobs)
	if c.refused(t, err) {
		return
	}
	got, err := h.tree(stack)
	if err != nil {
		t.Fatal(err)
	}
	c.compare(t, c.Expect.Tree, got)
}

// refused tells whether it is over: the image was refused, as it must be.
func (c *mergeCase) refused(t *testing.T, err error) bool {
	t.Helper()
	switch {
	case !c.Expect.Error && err != nil:
		t.Fatalf("%s\n%v", c.Note, err)
	case c.Expect.Error && err == nil:
		t.Fatalf("%s\nnot refused", c.Note)
	case c.Expect.Error && !errdefs.IsInvalidArgument(err):
		t.Fatalf("%s\nrefused without ErrInvalidArgument: %v", c.Note, err)
	}
	return c.Expect.Error
}

func (c *mergeCase) compare(t *testing.T, want, got layertest.Tree) {
	t.Helper()
	if diffs := want.Diff(got); len(diffs) > 0 {
		t.Errorf("%s\n%s", c.Note, strings.Join(diffs, "\n"))
	}
}

// TestMergeOntoMount extracts every layer of every image onto the layers below.
func TestMergeOntoMount(t *testing.T) {
	for _, c := range readMergeCases(t) {
		t.Run(c.ID, func(t *testing.T) {
			h := kernelHouse(t)
			blobs, err := tars(c.Layers)
			if err != nil {
				t.Fatal(err)
			}
			stack, err := h.allOnto(blobs)
			if c.refused(t, err) {
				return
			}
			got, err := h.tree(stack)
			if err != nil {
				t.Fatal(err)
			}
			c.compare(t, c.naive(got), got)
		})
	}
}

// TestMergeOntoDirectory extracts the layers of every image onto one directory.
func TestMergeOntoDirectory(t *testing.T) {
	for _, c := range readMergeCases(t) {
		t.Run(c.ID, func(t *testing.T) {
			h := kernelHouse(t)
			blobs, err := tars(c.Layers)
			if err != nil {
				t.Fatal(err)
			}
			root, err := h.mkdir("root")
			for i := 0; i < len(blobs) && err == nil; i++ {
				_, err = h.plain(root, blobs[i])
			}
			if c.refused(t, err) {
				return
			}
			got, err := layertest.Dump(root)
			if err != nil {
				t.Fatal(err)
			}
			c.compare(t, c.naive(got), got)
		})
	}
}

// naive is what is expected of an extraction onto what is there: at the paths of
// Deliberate, the naive result will do as well.
func (c *mergeCase) naive(got layertest.Tree) layertest.Tree {
	want := layertest.Tree{}
	for p, line := range c.Expect.Tree {
		want[p] = line
		_, rest, ok := strings.Cut(c.Deliberate, p+": want ")
		if !ok {
			continue
		}
		line, _, _ := strings.Cut(rest, " | got ")
		if line != "(absent)" && len(layertest.Tree{p: line}.Diff(layertest.Tree{p: got[p]})) == 0 {
			want[p] = line
		}
	}
	return want
}
