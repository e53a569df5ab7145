// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// node is a file, a directory or (in a layer) a whiteout, in memory.
type node struct {
	whiteout bool
	file     string
	opaque   bool
	children map[string]*node // a directory has one, also when it is empty
}

func (n *node) isDir() bool { return n.children != nil }

// applyTo is the naive truth: a layer applied to a plain tree.
func (n *node) applyTo(view *node) {
	if n.opaque {
		view.children = map[string]*node{}
	}
	for name, child := range n.children {
		switch {
		case child.whiteout:
			delete(view.children, name)
		case !child.isDir():
			view.children[name] = &node{file: child.file}
		default:
			if below := view.children[name]; below == nil || !below.isDir() {
				view.children[name] = &node{children: map[string]*node{}}
			}
			child.applyTo(view.children[name])
		}
	}
}

func (n *node) flatten(prefix string, into map[string]string) map[string]string {
	for name, child := range n.children {
		if child.isDir() {
			into[prefix+name] = "dir"
			child.flatten(prefix+name+"/", into)
		} else {
			into[prefix+name] = child.file
		}
	}
	return into
}

// drawLayer draws the content of a layer's directory. Below an opaque directory
// there are no whiteouts: extraction makes none there.
func drawLayer(t *rapid.T, depth int, opaque bool) *node {
	n := &node{opaque: opaque, children: map[string]*node{}}
	for _, name := range []string{"a", "b", "c"} {
		switch rapid.SampledFrom([]string{"", "", "file", "dir", "opaque", "whiteout"}).Draw(t, name) {
		case "file":
			n.children[name] = &node{file: rapid.StringMatching(`[x-z]{2}`).Draw(t, "content")}
		case "dir":
			if depth > 0 {
				n.children[name] = drawLayer(t, depth-1, false)
			}
		case "opaque":
			if depth > 0 {
				n.children[name] = drawLayer(t, depth-1, true)
			}
		case "whiteout":
			n.children[name] = &node{whiteout: true}
		}
	}
	if opaque {
		n.dropWhiteouts()
	}
	return n
}

func (n *node) dropWhiteouts() {
	maps.DeleteFunc(n.children, func(_ string, c *node) bool { return c.whiteout })
	for _, child := range n.children {
		child.dropWhiteouts()
	}
}

// writeTo writes a layer in overlay's form, with this package's codec.
func (n *node) writeTo(path string, ns XattrNamespace) (err error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fd := int(f.Fd())
	if n.opaque {
		err = ns.SetOpaque(fd)
	}
	for name, child := range n.children {
		sub := filepath.Join(path, name)
		switch {
		case child.whiteout:
			err = errors.Join(err, MakeWhiteout(fd, name), ns.MarkOrigin(fd))
		case child.isDir():
			err = errors.Join(err, child.writeTo(sub, ns))
		default:
			err = errors.Join(err, os.WriteFile(sub, []byte(child.file), 0o644))
		}
	}
	return err
}

// readTree reads what a mount shows in the form of flatten.
func readTree(root string) (map[string]string, error) {
	tree := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			tree[rel] = "dir"
			return nil
		}
		data, err := os.ReadFile(path)
		tree[rel] = string(data)
		return err
	})
	return tree, err
}

// checkMerge draws layers and a chain of them, with repetitions, and compares
// what the plan's mount shows with the naive application of the whole chain.
func checkMerge(t *testing.T, base string, ns XattrNamespace, options []string) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(base, "m")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}()
		nodes := make([]*node, rapid.IntRange(1, 4).Draw(t, "layers"))
		layers := make([]Layer, len(nodes))
		for i := range nodes {
			nodes[i] = drawLayer(t, 2, rapid.IntRange(0, 5).Draw(t, "opaque root") == 0)
			layers[i] = Layer{Path: fmt.Sprintf("%s/%d", dir, i), Empty: len(nodes[i].children) == 0, OpaqueRoot: nodes[i].opaque}
			if err := nodes[i].writeTo(layers[i].Path, ns); err != nil {
				t.Fatal(err)
			}
		}
		chain := rapid.SliceOfN(rapid.IntRange(0, len(nodes)-1), 0, 7).Draw(t, "chain, top first")
		want := &node{children: map[string]*node{}}
		stack := make([]Layer, len(chain))
		for i := len(chain) - 1; i >= 0; i-- {
			nodes[chain[i]].applyTo(want)
			stack[i] = layers[chain[i]]
		}
		plan := Plan{Lowers: Lowers(stack), Empty: dir + "/empty", Options: options}
		if rapid.Bool().Draw(t, "writable") {
			plan.Upper, plan.Work = dir+"/upper", dir+"/work"
			plan.ForceOverlay = rapid.Bool().Draw(t, "forced")
		}
		compare(t, plan, want.flatten("", map[string]string{}), dir+"/merged")
	})
}

func compare(t *rapid.T, plan Plan, want map[string]string, target string) {
	for _, dir := range []string{plan.Empty, plan.Upper, plan.Work, target} {
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mounts, err := plan.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.All(mounts, target); err != nil {
		t.Fatalf("the plan does not mount: %v", err)
	}
	got, readErr := readTree(target)
	if err := mount.UnmountAll(target, 0); err != nil {
		t.Fatal(err)
	}
	if readErr != nil {
		t.Fatalf("read the mount: %v", readErr)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("the mount shows\n%v\nand must show\n%v", got, want)
	}
}

func TestMergedView(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	checkMerge(t, base, Trusted, []string{"index=off"})
}

func TestMergedViewInUserNamespace(t *testing.T) {
	if !testutil.InUserNS(t, 100000) {
		return
	}
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	checkMerge(t, base, User, []string{"index=off", "userxattr"})
}
