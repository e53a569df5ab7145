// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/image-spec/identity"

	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/layerstore"
)

// shape is images of one node, and what of their layers is kept.
type shape struct {
	name                     string
	images                   [][]layertest.Layer
	shared, private, patches int
}

func shapes() []shape {
	dir, file := layertest.Dir, layertest.File
	a := layertest.Layer{dir("d"), file("d/a", "a"), file("d/both", "a")}
	b := layertest.Layer{dir("d"), file("d/b", "b"), file("d/both", "b"), layertest.Whiteout("d/a")}
	// The first two say different things of the directories that implicit has no
	// entries for, the third what the first says.
	strict := layertest.Layer{dir("usr").Perm(0o711), dir("usr/share").Perm(0o700).Owner(3, 4), file("usr/share/strict", "")}
	open := layertest.Layer{dir("usr"), dir("usr/share").Perm(0o1777), file("usr/share/open", "")}
	same := layertest.Layer{dir("usr").Perm(0o711), dir("usr/share").Perm(0o700).Owner(3, 4), file("usr/share/same", "")}
	implicit := layertest.Layer{file("usr/share/doc/text", "text")}
	linked := layertest.Layer{layertest.Hardlink("again", "usr/share/strict")}
	moved := layertest.Layer{dir("elsewhere").Perm(0o750), layertest.Symlink("usr", "elsewhere")}
	cut := layertest.Layer{layertest.Opaque("."), dir("new"), file("new/file", "new")}
	return []shape{
		{name: "one layer twice", shared: 2, images: [][]layertest.Layer{{a, b, a}, {b, a, b, b}, {a, a}}},
		{name: "empty layers", shared: 3, images: [][]layertest.Layer{{{}, a, {}, {}, b, {}}, {{}, {}}, {b, {}}}},
		{name: "implicit directories", shared: 4, patches: 2, images: [][]layertest.Layer{{strict, implicit}, {open, implicit}, {same, implicit}, {implicit}}},
		{name: "mounted fallback", shared: 2, private: 2, images: [][]layertest.Layer{{strict, linked}, {strict, a, linked}}},
		{name: "a directory that is a link elsewhere", shared: 3, private: 1, patches: 1, images: [][]layertest.Layer{{strict, implicit}, {moved, implicit}}},
		{name: "opaque root", shared: 3, images: [][]layertest.Layer{{a, b, cut, a}, {b, cut}, {cut}}},
	}
}

// What is not an ordinary layer is right in every image that has it, and kept as often
// as it has to be.
func TestSharingOfShapes(t *testing.T) {
	needStrata(t)
	for name, unpacks := range modes {
		t.Run(name, func(t *testing.T) {
			m := newMeter(t)
			n := newNode(t, settings{unpacks: unpacks})
			for _, s := range shapes() {
				t.Run(s.name, func(t *testing.T) {
					whole := n.t
					n.t = t
					defer func() { n.t = whole }()
					n.testShape(m, s)
				})
			}
		})
	}
}

func (n *node) testShape(m *meter, s shape) {
	ctx := n.ctx()
	var all []published
	for i, layers := range s.images {
		p := m.publish("shape-"+string(rune('a'+i)), layers...)
		n.expectTree(ctx, n.pull(ctx, p.ref), p)
		all = append(all, p)
	}
	n.checkStore()
	var shared, private, patches int
	for _, m := range n.layerJSONs() {
		switch {
		case m.Patch:
			patches++
		case m.DiffID == "":
			private++
		default:
			shared++
		}
	}
	if shared != s.shared || private != s.private || patches != s.patches {
		n.t.Errorf("%d layers are shared, %d private, %d patches; want %d, %d, %d", shared, private, patches, s.shared, s.private, s.patches)
	}
	for i, p := range all {
		n.deleteImage(ctx, p.ref)
		if i+1 < len(all) {
			image, err := n.client.GetImage(ctx, all[i+1].ref)
			if err != nil {
				n.t.Fatal(err)
			}
			n.expectTree(ctx, image, all[i+1])
		}
	}
	n.expectLayers(0)
	n.checkStore()
}

// A layer that has to ask those below is here, and its parents are not: it is not fetched,
// also where it turns out that it has to be extracted onto them.
func TestSharingOfLayersWithNeedsOnNewBases(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	n := newNode(t, settings{unpacks: 3})
	ctx := n.ctx()
	needy := layertest.Layer{layertest.File("usr/doc/text", strings.Repeat("text", bulk/4)), layertest.Hardlink("usr/again", "usr/doc/text")}
	first := m.publish("needs", layertest.Layer{layertest.Dir("usr").Perm(0o700)}, needy)
	n.pull(ctx, first.ref)
	n.forget(ctx, first.blobs[1])
	m.reset()
	_, release := m.hold(first.blobs[1])
	defer release()
	for name, base := range map[string]layertest.Layer{
		"dir":  {layertest.Dir("usr").Perm(0o711)},
		"link": {layertest.Dir("real").Perm(0o711), layertest.File("real/below", ""), layertest.Symlink("usr", "real")},
	} {
		before := n.extractions()
		second := m.publish("needs-"+name, base, needy)
		n.expectTree(ctx, n.pull(ctx, second.ref), second)
		if got := m.servedOf(first.blobs[1:]); got != 0 {
			t.Errorf("%s: %d bytes of the layer were fetched", name, got)
		}
		n.expectExtractions(before, 1)
		n.checkStore()
	}
	n.expectLayers(3 + 1 + 2 + 1) // bases, the layer, patches on directories, a copy on the link
}

// What a client wrote and committed is nobody else's, even on layers that are.
func TestSharingLeavesCommitsAlone(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	n := newNode(t, settings{})
	ctx := n.ctx()
	p := m.publish("below", heavies("below", 2, 4<<10)...)
	n.pull(ctx, p.ref)
	parent := identity.ChainID(p.diffIDs).String()
	keep := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "now"})
	for _, name := range []string{"one", "two"} {
		n.writeAndCommit(ctx, name, parent, keep)
	}
	var private []layerstore.Manifest
	for _, layer := range n.layerJSONs() {
		if layer.DiffID == "" {
			private = append(private, layer)
		} else if !slices.Contains(p.diffIDs, layer.DiffID) {
			t.Errorf("a layer has diffID %s, which nobody hashed", layer.DiffID)
		}
	}
	if len(private) != 2 {
		t.Errorf("%d private layers, want 2", len(private))
	}
	n.checkStore()
	for _, name := range []string{"two", "one"} {
		n.report("removing a commit", n.snapshots().Remove(ctx, name))
	}
}

// writeAndCommit makes a committed snapshot with one file, the same every time.
func (n *node) writeAndCommit(ctx context.Context, name, parent string, opts ...snapshots.Opt) {
	n.t.Helper()
	mounts, err := n.snapshots().Prepare(ctx, name+"-key", parent, opts...)
	if err != nil {
		n.t.Fatal(err)
	}
	err = mount.WithTempMount(ctx, mounts, func(root string) error {
		return os.WriteFile(filepath.Join(root, "written"), []byte("the same"), 0o600)
	})
	if err == nil {
		err = n.snapshots().Commit(ctx, name, name+"-key", opts...)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}
