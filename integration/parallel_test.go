// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/image-spec/identity"

	"github.com/strata-snapshotter/strata/internal/testimage"
)

// changes are layers that undo and redo each other, so that any order but the right
// one shows. Every parent directory has an entry of its own: without, containerd's
// walking differ and a late parent do not agree on the directory's mode.
func changes() []testimage.Layer {
	return []testimage.Layer{
		{testimage.Dir("d"), testimage.File("d/a", "a1"), testimage.File("d/b", "b1"), testimage.Dir("d/sub"), testimage.File("d/sub/x", "x1")},
		{testimage.Dir("d"), testimage.File("d/a", "a2").Mode(0o600), testimage.Whiteout("d/b")},
		{testimage.Dir("d").Mode(0o711), testimage.File("d/b", "b3"), testimage.Whiteout("d/sub")},
		{testimage.Dir("d").Owner(3, 4), testimage.Dir("d/sub").Mode(0o700), testimage.File("d/sub/y", "y4")},
		{testimage.Dir("d"), testimage.Dir("o"), testimage.File("o/1", "1"), testimage.File("o/2", "2"), testimage.Symlink("d/link", "sub/y")},
		{testimage.Dir("o"), testimage.Opaque("o"), testimage.File("o/3", "3"), testimage.Hardlink("o/4", "o/3")},
		{},
		{testimage.Dir("d"), testimage.Whiteout("d/a"), testimage.Dir("d/a"), testimage.File("d/a/now", "a directory")},
	}
}

// A pull that unpacks several layers at once, each without knowing its parent yet,
// gives the same file system as containerd's own snapshotter one layer after another.
func TestParallelUnpack(t *testing.T) {
	n := newNode(t, settings{unpacks: 3})
	ctx, ref := n.ctx(), startRegistry(t)+"/changes:1"
	push(t, ref, build(t, append([]testimage.Layer{base(t)}, changes()...)...))
	image := n.pull(ctx, ref)
	if err := image.Unpack(ctx, "overlayfs"); err != nil {
		t.Fatal(err)
	}
	got := n.mergedView(ctx, image, n.settings.snapshotter)
	want := n.mergedView(ctx, image, "overlayfs")
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if got[path] != want[path] {
			t.Errorf("%s: %q, want %q", path, got[path], want[path])
		}
		delete(got, path)
	}
	for path, entry := range got {
		t.Errorf("%s: %q, want nothing", path, entry)
	}
	c := n.start(image, spec{id: "parallel", args: []string{"/bin/cat", "/d/a/now"}})
	c.wait()
	c.remove()
	expect(t, "the topmost layer's file", c.out.String(), "a directory")
}

// mergedView mounts an image's top snapshot and describes each path of it.
func (n *node) mergedView(ctx context.Context, image containerd.Image, snapshotter string) map[string]string {
	n.t.Helper()
	ids, err := image.RootFS(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	service := n.client.SnapshotService(snapshotter)
	mounts, err := service.View(ctx, "look", identity.ChainID(ids).String(), snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "now"}))
	if err != nil {
		n.t.Fatalf("view with %s: %v", snapshotter, err)
	}
	defer func() {
		if err := service.Remove(ctx, "look"); err != nil {
			n.t.Errorf("removing the view: %v", err)
		}
	}()
	view := map[string]string{}
	if err := mount.WithReadonlyTempMount(ctx, mounts, func(root string) error { return describe(root, view) }); err != nil {
		n.t.Fatalf("looking at %s: %v", snapshotter, err)
	}
	return view
}

// describe fills view with what each path below root is.
func describe(root string, view map[string]string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		content, err := contentOf(path, info)
		if err != nil {
			return err
		}
		text := fmt.Sprintf("%s %d:%d %s", info.Mode(), st.Uid, st.Gid, content)
		if !info.IsDir() {
			text += fmt.Sprintf(" links %d, modified %d", st.Nlink, info.ModTime().UnixNano())
		}
		view[name] = text
		return nil
	})
}

func contentOf(path string, info fs.FileInfo) (string, error) {
	switch {
	case info.Mode().IsRegular():
		data, err := os.ReadFile(path)
		return fmt.Sprintf("%x", sha256.Sum256(data)), err
	case info.Mode()&fs.ModeSymlink != 0:
		return os.Readlink(path)
	default:
		return "", nil
	}
}
