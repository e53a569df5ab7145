// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/fsck"
)

// cli is the program strata, run against the store of a node.
type cli struct {
	n       *node
	program string
}

// newCLI builds it, with the flags of make, so that what that has compiled is there.
func (n *node) newCLI() cli {
	n.t.Helper()
	c := cli{n, filepath.Join(n.t.TempDir(), "strata")}
	cmd := exec.Command("go", "build", "-trimpath", "-o", c.program, "../cmd/strata")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		n.t.Fatalf("building strata: %v", err)
	}
	return c
}

// run gives what the program says and its exit code.
func (c cli) run(args ...string) (stdout, stderr string, code int) {
	c.n.t.Helper()
	cmd := exec.Command(c.program, append([]string{"--root", c.n.root}, args...)...)
	cmd.Env = append(os.Environ(), "CONTAINERD_ADDRESS="+c.n.address())
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	var exit *exec.ExitError
	if e := cmd.Run(); errors.As(e, &exit) {
		code = exit.ExitCode()
	} else if e != nil {
		c.n.t.Fatal(e)
	}
	return out.String(), err.String(), code
}

func (c cli) json(v any, args ...string) {
	c.n.t.Helper()
	stdout, stderr, code := c.run(append(args, "--json")...)
	if code != 0 || stderr != "" {
		c.n.t.Fatalf("strata %q: exit %d: %s", args, code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), v); err != nil {
		c.n.t.Fatalf("strata %q: %v", args, err)
	}
}

type (
	lookHolder struct {
		Kind, Namespace, Name, Image   string
		Size, Own, Shared, Reclaimable int64
		Layers                         int
	}
	lookLayer struct {
		Number uint64
		DiffID digest.Digest
		Size   int64
		Shared bool
		UsedBy []lookHolder
	}
	lookSnapshot struct {
		Name, Kind string
		Size       int64
		DiffID     digest.Digest
		SharedWith []string
		UsedBy     []lookHolder
	}
	lookPart struct {
		Name          string
		Count         int
		Bytes, Inodes int64
	}
)

// The store of a daemon that runs, with two images that share layers and a container
// that writes: who has what is said with their names, and figures are those of the disk.
func TestLookIntoRunningDaemon(t *testing.T) {
	needStrata(t)
	m := newMeter(t)
	f := newFamily(m)
	n := newNode(t, settings{})
	c := n.newCLI()
	n.pull(n.ctx(), f.first.ref)
	n.pull(n.ctx(), f.second.ref)
	image := n.pull(n.ctx(), runnable(t, m).ref)
	const written = 96 << 10
	box := n.start(image, spec{id: "writer", args: []string{"/bin/sh", "-c", fmt.Sprintf("head -c %d /dev/zero > /written; sync; echo done; exec sleep 600", written)}})
	eventually(t, "the container has written", func() error {
		if !strings.Contains(box.out.String(), "done") {
			return errors.New("not yet")
		}
		return nil
	})

	c.checkHolders(f, image.Name(), written)
	c.checkLayers(f)
	c.checkTree(f)
	c.checkOwners(f)
	eventually(t, "figures are those of the disk", c.checkUsage)
	c.checkRefusals()
	c.checkExport(f)
	box.remove()
	n.checkStore()
}

func find[T any](t *testing.T, list []T, what string, is func(T) bool) T {
	t.Helper()
	i := slices.IndexFunc(list, is)
	if i < 0 {
		t.Fatalf("no %s in %+v", what, list)
	}
	return list[i]
}

func (c cli) checkHolders(f family, image string, written int64) {
	t := c.n.t
	t.Helper()
	var list []lookHolder
	c.json(&list, "du")
	for _, p := range []published{f.first, f.second} {
		h := find(t, list, p.ref, func(h lookHolder) bool { return h.Kind == "image" && h.Name == p.ref })
		if h.Namespace != c.n.namespace || h.Layers != 4 || h.Own == 0 || h.Own != h.Reclaimable || h.Shared < 3*bulk || h.Size != h.Own+h.Shared {
			t.Errorf("%+v", h)
		}
	}
	h := find(t, list, "container", func(h lookHolder) bool { return h.Kind == "container" })
	if h.Name != "writer" || h.Image != image || h.Own < written || h.Reclaimable != h.Own || h.Shared == 0 {
		t.Errorf("%+v", h)
	}
}

func (c cli) checkLayers(f family) {
	t := c.n.t
	t.Helper()
	var list []lookLayer
	c.json(&list, "du", "--by", "layer")
	for i, diffID := range f.first.diffIDs {
		l := find(t, list, diffID.String(), func(l lookLayer) bool { return l.DiffID == diffID })
		want := []string{f.first.ref}
		if i > 0 {
			want = append(want, f.second.ref)
		}
		var names []string
		for _, h := range l.UsedBy {
			names = append(names, h.Name)
		}
		slices.Sort(names)
		if slices.Sort(want); !slices.Equal(names, want) || l.Shared != (i > 0) {
			t.Errorf("layer %d of the first image: %+v, want to be used by %v", i, l, want)
		}
	}
}

func (c cli) checkTree(f family) {
	t := c.n.t
	t.Helper()
	var tree, list []lookSnapshot
	c.json(&tree, "tree")
	c.json(&list, "ls")
	if len(tree) != len(list) {
		t.Errorf("%d snapshots in the tree, and %d in the list", len(tree), len(list))
	}
	shared := 0
	for _, s := range tree {
		if slices.Contains(f.first.diffIDs[1:], s.DiffID) && len(s.SharedWith) == 1 {
			shared++
		}
	}
	if shared != 6 {
		t.Errorf("%d snapshots share a layer, want 3 of each image", shared)
	}
	find(t, tree, "topmost snapshot of the first image", func(s lookSnapshot) bool {
		return slices.ContainsFunc(s.UsedBy, func(h lookHolder) bool { return h.Name == f.first.ref })
	})
}

func (c cli) checkOwners(f family) {
	t := c.n.t
	t.Helper()
	var layers []lookLayer
	c.json(&layers, "du", "--by", "layer")
	l := find(t, layers, "shared layer", func(l lookLayer) bool { return l.DiffID == f.first.diffIDs[1] })
	for _, what := range []string{
		filepath.Join(c.n.root, "layers", strconv.FormatUint(l.Number, 10), "fs/common/last"),
		"layers/" + strconv.FormatUint(l.Number, 10),
	} {
		var list []lookHolder
		c.json(&list, "owner", what)
		for _, p := range []published{f.first, f.second} {
			find(t, list, p.ref, func(h lookHolder) bool { return h.Kind == "image" && h.Name == p.ref })
		}
	}
}

// checkUsage compares with du(1). What the daemon does in the background can be seen by
// one of them only.
func (c cli) checkUsage() error {
	var exact, recorded []lookPart
	c.json(&exact, "usage", "--measure")
	c.json(&recorded, "usage")
	out, err := exec.Command("du", "-sx", "--block-size=1", c.n.root).Output()
	if err != nil {
		return err
	}
	digits, _, _ := strings.Cut(string(out), "\t")
	want, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return err
	}
	const block = 4096
	is := func(name string) func(lookPart) bool { return func(p lookPart) bool { return p.Name == name } }
	if got := find(c.n.t, exact, "total", is("total")).Bytes; got != want {
		return fmt.Errorf("%d bytes in total, and du says %d", got, want)
	}
	// Counted when they were made, with what the file system had given them by then.
	layers, now := find(c.n.t, recorded, "layers", is("layers")), find(c.n.t, exact, "layers", is("layers"))
	if d := layers.Bytes - now.Bytes; d > block*now.Inodes || d < -block*now.Inodes || layers.Inodes != now.Inodes {
		return fmt.Errorf("layers were counted as %+v, and are %+v", layers, now)
	}
	if saved := find(c.n.t, exact, "saved", is("saved by sharing")); saved.Bytes < 3*bulk || saved.Count < 3 {
		return fmt.Errorf("%+v", saved)
	}
	return nil
}

// checkRefusals: what changes a root is for one that nobody serves.
func (c cli) checkRefusals() {
	t := c.n.t
	t.Helper()
	if _, stderr, code := c.run("fsck", "--repair"); code != fsck.ExitNotChecked || !strings.Contains(stderr, "is locked by process") {
		t.Errorf("fsck: exit %d: %s", code, stderr)
	}
}

func (c cli) checkExport(f family) {
	t := c.n.t
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	if _, stderr, code := c.run("store", "export", f.first.ref, f.second.ref, dir); code != 0 {
		t.Fatalf("export: exit %d: %s", code, stderr)
	}
	var list []lookLayer
	c.json(&list, "store", "verify", dir)
	for _, diffID := range append(slices.Clone(f.first.diffIDs), f.second.diffIDs...) {
		find(t, list, diffID.String(), func(l lookLayer) bool { return l.DiffID == diffID })
	}
	if len(list) != 5 {
		t.Errorf("%d layers were exported, want 5", len(list))
	}
}
