// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// fuseMounted shows a mount, which is for fuse-overlayfs, at target while do runs.
func fuseMounted(t *testing.T, m mount.Mount, target string, do func()) {
	t.Helper()
	if m.Type != overlayutil.FuseOverlayfs {
		t.Fatalf("not for fuse-overlayfs: %+v", m)
	}
	if out, err := exec.Command("fuse-overlayfs", "-o", strings.Join(m.Options, ","), target).CombinedOutput(); err != nil {
		t.Fatalf("fuse-overlayfs -o %s: %v\n%s", strings.Join(m.Options, ","), err, out)
	}
	defer func() {
		if out, err := exec.Command("fusermount3", "-u", target).CombinedOutput(); err != nil {
			t.Errorf("fusermount3: %v\n%s", err, out)
		}
	}()
	do()
}

var (
	specialFile  = regexp.MustCompile(`^((char|block) [0-9]+:[0-9]+|fifo) `)
	hiddenXattrs = regexp.MustCompile(`user\.containers\.override_stat="[^"]*",?`)
)

// asShown is a tree as fuse-overlayfs shows it: it knows no owners of symbolic links, and
// before version 1.15 it shows a device as the empty file that it is on the disk. The
// attributes, which it shows too, are not the image's.
func asShown(tree layertest.Tree) layertest.Tree {
	out := layertest.Tree{}
	for p, line := range tree.UnknownOwners() {
		line = specialFile.ReplaceAllString(line, `file[""] `)
		line = hiddenXattrs.ReplaceAllString(line, "")
		line = strings.Replace(line, "user.containers.security.", "security.", 1)
		line = strings.Replace(strings.Replace(line, ",}", "}", 1), " x{}", "", 1)
		out[p] = line
	}
	return out
}

// manyShapes is an image with what layers have in them.
func manyShapes() []layertest.Layer {
	owner := func(e layertest.Entry, mode layertest.Octal, uid, gid int) layertest.Entry {
		e.Mode, e.UID, e.GID = mode, uid, gid
		return e
	}
	var base layertest.Layer
	for i := range 40 {
		dir := fmt.Sprintf("dir%d", i)
		base = append(base, owner(layertest.Dir(dir), layertest.Octal(0o700|i), i, 1000+i))
		for j := range 10 {
			name := fmt.Sprintf("%s/file%d", dir, j)
			base = append(base, owner(layertest.File(name, strings.Repeat(name, j)), layertest.Octal([]int{0o644, 0o4755, 0o2755, 0o400, 0, 0o111, 0o1666, 0o6711, 0o600, 0o444}[j]), j, 1<<j))
		}
		base = append(base, layertest.Symlink(dir+"/link", "file1"), owner(layertest.Hardlink(dir+"/hard", dir+"/file3"), 0o640, 3, 8))
	}
	base = append(base,
		owner(layertest.Dir("tmp"), 0o1777, 0, 0), owner(layertest.Device(layertest.TypeChar, "tmp/null", 1, 3), 0o666, 0, 5),
		owner(layertest.Device(layertest.TypeBlock, "tmp/disk", 8, 300), 0o660, 0, 6), layertest.Fifo("tmp/fifo"),
		owner(layertest.File("tmp/largest", ""), 0o644, 1<<32-2, 1<<32-2))
	change := layertest.Layer{
		layertest.Whiteout("dir1/file1"), layertest.Whiteout("dir2"), layertest.Dir("dir3"), layertest.Opaque("dir3"),
		owner(layertest.File("dir3/new", "new"), 0o4711, 7, 7), layertest.Whiteout("dir4/link"), owner(layertest.File("dir4/link", ""), 0o600, 9, 9),
		owner(layertest.Dir("dir5/file5"), 0o711, 5, 5), layertest.File("dir5/file5/in", "in"),
		layertest.Hardlink("dir6/again", "dir7/file2"), layertest.Symlink("dir8/up", "../dir9"), layertest.File("dir8/up/through", "t"),
	}
	return []layertest.Layer{base, change, {layertest.Whiteout("dir10/file1"), layertest.File("dir11/last", "")}}
}

// TestOverrideFuse mounts what an ordinary user's store has with fuse-overlayfs: it
// shows what a privileged unpack of the same layers does.
func TestOverrideFuse(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.RequireTool(t, "fuse-overlayfs", "fusermount3")
	c := overrideCase{Layers: manyShapes()}
	l := c.library(t)
	real := open(t, Config{Durability: DurabilityNone})
	plain := openOverride(t, filepath.Join(t.TempDir(), "root"))
	for _, how := range []way{plain1, late} {
		for n := range c.Layers {
			image := l.image()[:n+1]
			real.UseUnpacker(l)
			want := l.shown(t, real, image, how, func(m mount.Mount, do func(dir string)) { mounted(t, []mount.Mount{m}, do) })
			plain.UseUnpacker(l)
			got := l.shown(t, plain, image, how, func(m mount.Mount, do func(dir string)) {
				dir := t.TempDir()
				fuseMounted(t, m, dir, func() { do(dir) })
			})
			if len(want) < 400 {
				t.Errorf("%d entries compared", len(want))
			}
			if diffs := asShown(want).Diff(asShown(got)); len(diffs) > 0 {
				t.Errorf("%d layers: fuse-overlayfs shows\n%s", n+1, strings.Join(diffs, "\n"))
			}
		}
	}
}

// shown unpacks an image and returns what a view of it shows.
func (l library) shown(t *testing.T, s *Snapshotter, image []int, how way, at func(m mount.Mount, do func(dir string))) (tree layertest.Tree) {
	t.Helper()
	made, err := l.pull(t, s, image, how)
	if err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf("view-%d", l.counter.Add(1))
	m, err := s.View(ctx, key, made[len(made)-1])
	if err != nil {
		t.Fatal(err)
	}
	at(m[0], func(dir string) {
		if tree, err = layertest.Dump(dir); err != nil {
			t.Error(err)
		}
	})
	mustRemove(t, s, key)
	for i := len(made) - 1; i >= 0; i-- {
		mustRemove(t, s, made[i])
	}
	return tree
}

// TestOverrideCommit commits what a container changed through fuse-overlayfs: the layer
// can be read below others.
func TestOverrideCommit(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.RequireTool(t, "fuse-overlayfs", "fusermount3")
	root := filepath.Join(t.TempDir(), "root")
	s := openOverride(t, root)
	mine := func(e layertest.Entry) layertest.Entry { e.UID, e.GID = 5, 6; return e }
	all := func(e layertest.Entry) layertest.Entry { e.Mode = 0o777; return e }
	c := overrideCase{Layers: []layertest.Layer{{
		all(layertest.Dir("d")), mine(layertest.File("d/a", "a")), mine(layertest.File("d/b", "b")), mine(layertest.Dir("gone")),
		mine(layertest.File("gone/x", "x")), mine(layertest.File("changed", "old")), all(mine(layertest.Dir("kept"))), layertest.File("kept/k", "k"),
	}}}
	l := c.library(t)
	s.UseUnpacker(l)
	base := l.mustPullAll(t, s)
	m := prepare(t, s, "container", base)
	target := t.TempDir()
	var want layertest.Tree
	fuseMounted(t, m[0], target, func() { want = changeAsContainer(t, target) })
	mustCommit(t, s, "committed", "container")
	got, err := s.overrideTree("committed")
	if err != nil {
		t.Fatal(err)
	}
	for _, tree := range []layertest.Tree{want, got} {
		for p, line := range tree {
			tree[p] = regexp.MustCompile(`mtime=[0-9.]+|mtime=NOW`).ReplaceAllString(line, "mtime=0")
		}
	}
	if diffs := asShown(want).Diff(asShown(got)); len(diffs) > 0 {
		t.Errorf("the layer is not what the container saw:\n%s", strings.Join(diffs, "\n"))
	}
	view, err := s.View(ctx, "view", "committed")
	if err != nil {
		t.Fatal(err)
	}
	fuseMounted(t, view[0], target, func() {
		again, err := layertest.Dump(target)
		if err != nil {
			t.Fatal(err)
		}
		for p, line := range again {
			again[p] = regexp.MustCompile(`mtime=[0-9.]+|mtime=NOW`).ReplaceAllString(line, "mtime=0")
		}
		if diffs := asShown(want).Diff(asShown(again)); len(diffs) > 0 {
			t.Errorf("fuse-overlayfs shows of the layer:\n%s", strings.Join(diffs, "\n"))
		}
	})
}

func (l library) mustPullAll(t *testing.T, s *Snapshotter) string {
	t.Helper()
	made, err := l.pull(t, s, l.image(), plain1)
	if err != nil {
		t.Fatal(err)
	}
	return made[len(made)-1]
}

// changeAsContainer makes all kinds of changes, and returns what is there then.
func changeAsContainer(t *testing.T, dir string) layertest.Tree {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("d/new"), []byte("new"), 0o640), os.Mkdir(at("d/sub"), 0o755), os.Chmod(at("d/sub"), 0o2711),
		os.WriteFile(at("d/sub/in"), nil, 0o4755), os.Remove(at("d/a")), os.Rename(at("d/b"), at("d/c")),
		os.RemoveAll(at("gone")), os.RemoveAll(at("kept")), os.Mkdir(at("kept"), 0o750), os.Lchown(at("d/new"), 7, 8), os.Symlink("new", at("d/link")), unix.Mkfifo(at("d/fifo"), 0o600),
		os.Truncate(at("changed"), 1), os.Chmod(at("changed"), 0o4711), os.Link(at("d/new"), at("d/hard")),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	tree, err := layertest.Dump(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
