// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"archive/tar"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func ownerAndMode(path string) (uid, gid, mode uint32, err error) {
	var st unix.Stat_t
	err = unix.Lstat(path, &st)
	return st.Uid, st.Gid, st.Mode & 0o7777, err
}

func knowsStaging(context.Context) bool { return true }

// openSharing opens a root on a tmpfs, of a containerd that knows staged snapshots.
func openSharing(t *testing.T, cfg Config) (*Snapshotter, library) {
	t.Helper()
	testutil.RequireRoot(t)
	if cfg.Root == "" {
		cfg.Root = filepath.Join(testutil.Tmpfs(t), "root")
	}
	if cfg.Staging == nil {
		cfg.Staging = knowsStaging
	}
	l := newLibrary(t)
	s := open(t, cfg)
	s.UseUnpacker(l)
	return s, l
}

// layerDirs says how many layers the root has.
func layerDirs(t *testing.T, s *Snapshotter) int {
	t.Helper()
	return len(list(t, filepath.Join(s.cfg.Root, "layers")))
}

func layerOf(t *testing.T, s *Snapshotter, name string) uint64 {
	t.Helper()
	sn, err := s.get(name)
	if err != nil {
		t.Fatal(err)
	}
	return sn.Layer
}

func removeAll(t *testing.T, s *Snapshotter, made []string) {
	t.Helper()
	for _, name := range slices.Backward(made) {
		mustRemove(t, s, name)
	}
}

// The second image has two layers of the first on another base. Nothing of them is
// extracted, whatever the client says, unless it says nothing.
func TestSecondImageHasTheLayersOfTheFirst(t *testing.T) {
	for how := range ways {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			s, l := openSharing(t, Config{})
			first := l.mustPull(t, s, plain1, 0, 7, 6)
			second := l.mustPull(t, s, how, 1, 7, 6)
			for i := range 2 {
				if a, b := layerOf(t, s, first[i+1]), layerOf(t, s, second[i+1]); a != b {
					t.Errorf("layer %d is here twice, as %d and %d", i+1, a, b)
				}
			}
			checkStore(t, s)
			if n := layerDirs(t, s); n != 4 {
				t.Errorf("%d layers, want 4", n)
			}
			removeAll(t, s, first)
			if err := l.check(s, second[2], []int{1, 7, 6}); err != nil {
				t.Error(err)
			}
			if n := layerDirs(t, s); n != 3 {
				t.Errorf("%d layers after the first image went, want 3", n)
			}
			removeAll(t, s, second)
			if n := layerDirs(t, s); n != 0 {
				t.Errorf("%d layers of nobody", n)
			}
		})
	}
}

// containerd looks the snapshot up by its label and parent, and has to find one.
func TestPrepareOfAKnownLayer(t *testing.T) {
	s, l := openSharing(t, Config{})
	l.mustPull(t, s, plain1, 0, 7)
	base := l.mustPull(t, s, plain1, 1)[0]
	image := []int{1, 7}
	key := "default/9/extract-1 x"
	for range 2 { // the second time it is committed already, under the first key
		_, err := s.Prepare(ctx, key, base, snapshots.WithLabels(l.labels(image, diffIDs)))
		if !errdefs.IsAlreadyExists(err) {
			t.Fatalf("got %v", err)
		}
		found, err := findRef(s, l.chainID(image), base)
		if err != nil || !slices.Equal(found, []string{"default/9/extract-1 x"}) {
			t.Errorf("found %v, %v", found, err)
		}
		key = "default/10/extract-1 x"
	}
	if elsewhere, err := findRef(s, l.chainID(image), ""); err != nil || len(elsewhere) != 0 {
		t.Errorf("without the parent: %v, %v", elsewhere, err)
	}
	info, err := s.Stat(ctx, "default/9/extract-1 x")
	if err != nil || info.Kind != snapshots.KindCommitted || info.Parent != base || info.Labels[imageLabel] != "1 7" {
		t.Errorf("%+v, %v", info, err)
	}
}

// A staged snapshot has read-only mounts, no directory, and becomes a layer's next user.
func TestStagedSnapshot(t *testing.T) {
	s, l := openSharing(t, Config{})
	first := l.mustPull(t, s, plain1, 0, 7)
	base := l.mustPull(t, s, plain1, 1)[0]
	opt := snapshots.WithLabels(l.labels([]int{1, 7}, staged))
	m := prepare(t, s, "default/9/extract-x", "", opt)
	if !m[0].ReadOnly() {
		t.Fatalf("mounts %v", m)
	}
	if _, err := s.Stage(ctx, m, l.descs[7]); !errdefs.IsNotFound(err) {
		t.Errorf("extracting into it: %v", err)
	}
	if again, err := s.Mounts(ctx, "default/9/extract-x"); err != nil || fmt.Sprint(again) != fmt.Sprint(m) {
		t.Errorf("mounts %v, then %v (%v)", m, again, err)
	}
	removeAll(t, s, first) // the staged one keeps the layer
	s = reopen(t, s)
	checkStore(t, s)
	mustCommit(t, s, "default/9/top", "default/9/extract-x", opt, snapshots.WithParent(base))
	if err := l.check(s, "default/9/top", []int{1, 7}); err != nil {
		t.Error(err)
	}
}

func TestStagedSnapshotRemoved(t *testing.T) {
	s, l := openSharing(t, Config{})
	first := l.mustPull(t, s, plain1, 0, 7)
	prepare(t, s, "default/9/extract-x", "", snapshots.WithLabels(l.labels([]int{1, 7}, staged)))
	removeAll(t, s, first)
	if n := layerDirs(t, s); n != 1 {
		t.Errorf("%d layers while a staged snapshot has one", n)
	}
	mustRemove(t, s, "default/9/extract-x")
	if n := layerDirs(t, s); n != 0 {
		t.Errorf("%d layers of nobody", n)
	}
}

// What can't be believed or used leads to an extraction, and to no error.
func TestLabelsThatLeadToAnExtraction(t *testing.T) {
	s, l := openSharing(t, Config{})
	l.mustPull(t, s, plain1, 0, 7)
	with := func(change map[string]string) map[string]string {
		m := l.labels([]int{1, 7}, diffIDs)
		maps.Copy(m, change)
		maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
		return m
	}
	for name, m := range map[string]map[string]string{
		"unknown layer":     with(map[string]string{snapshots.LabelSnapshotDiffID: digest.FromString("x").String()}),
		"no digest":         with(map[string]string{snapshots.LabelSnapshotDiffID: "sha256:../../etc"}),
		"other algorithm":   with(map[string]string{snapshots.LabelSnapshotDiffID: "md5:d41d8cd98f00b204e9800998ecf8427e"}),
		"nothing said":      with(map[string]string{snapshots.LabelSnapshotDiffID: ""}),
		"no ref":            with(map[string]string{snapshots.LabelSnapshotRef: ""}),
		"no chain below":    with(map[string]string{parentLabel: ""}),
		"unknown blob":      with(map[string]string{snapshots.LabelSnapshotDiffID: "", blobLabel: digest.FromString("x").String()}),
		"blob is no digest": with(map[string]string{snapshots.LabelSnapshotDiffID: "", blobLabel: "sha256:zz"}),
		"needs its parent": func() map[string]string {
			l.mustUnpackNeedy(t, s)
			return l.labels([]int{1, len(pieces)}, staged)
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			m, err := s.Prepare(ctx, "default/9/extract-x", "", snapshots.WithLabels(m))
			if err != nil || m[0].ReadOnly() {
				t.Fatalf("%v, %v", m, err)
			}
			mustRemove(t, s, "default/9/extract-x")
		})
	}
}

// A key that is taken is the client's mistake, whatever layer it wants.
func TestPrepareOfAKnownLayerUnderATakenKey(t *testing.T) {
	s, l := openSharing(t, Config{})
	first := l.mustPull(t, s, plain1, 0)
	prepare(t, s, "default/9/extract-x", "")
	for _, image := range [][]int{{0}, {0, 0}} {
		_, err := s.Prepare(ctx, "default/9/extract-x", "", snapshots.WithLabels(l.labels(image, staged)))
		if !errdefs.IsAlreadyExists(err) {
			t.Errorf("%v: %v", image, err)
		}
	}
	_, err := s.Prepare(ctx, "default/8/extract-x", "nobody", snapshots.WithLabels(l.labels([]int{0, 0}, diffIDs)))
	if !errdefs.IsNotFound(err) && err != nil {
		t.Errorf("no such parent: %v", err)
	}
	if err == nil {
		t.Error("a snapshot on a parent that is not there")
	}
	removeAll(t, s, first)
}

func TestSharingOff(t *testing.T) {
	s, l := openSharing(t, Config{Sharing: SharingOff})
	for i := range 2 {
		made := l.mustPull(t, s, diffIDs, i, 7)
		m, err := s.store.ReadManifest(layerOf(t, s, made[1]))
		if err != nil || m.DiffID != "" {
			t.Errorf("%+v, %v", m, err)
		}
	}
	if n := layerDirs(t, s); n != 4 {
		t.Errorf("%d layers, want 4", n)
	}
}

// A namespace gets what it pulled before, and what it pulls is kept once all the same.
func TestSharingWithinANamespace(t *testing.T) {
	s, l := openSharing(t, Config{Sharing: SharingNamespace})
	l.mustPull(t, s, plain1, 0, 7)
	base := l.mustPull(t, s, plain1, 1)[0]
	opt := snapshots.WithLabels(l.labels([]int{1, 7}, diffIDs))
	m := prepare(t, s, "other/9/extract-x", base, opt)
	if m[0].ReadOnly() {
		t.Fatalf("%v", m)
	}
	if err := l.apply(t, s, m, l.descs[7]); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "other/9/top", "other/9/extract-x", opt)
	if n := layerDirs(t, s); n != 3 {
		t.Errorf("%d layers, want 3", n)
	}
	if _, err := s.Prepare(ctx, "default/9/extract-x", base, opt); !errdefs.IsAlreadyExists(err) {
		t.Errorf("the namespace that pulled it: %v", err)
	}
	if found, err := findRef(s, l.chainID([]int{1, 7}), base); err != nil || len(found) != 2 {
		t.Errorf("each namespace its own: %v, %v", found, err)
	}
	if _, err := s.Prepare(ctx, "other/9/extract-y", "", snapshots.WithLabels(l.labels([]int{0}, diffIDs))); err != nil {
		t.Errorf("a layer of another namespace: %v", err)
	}
	mustRemove(t, s, "other/9/extract-y")
}

// One directory without an entry, two bases: one layer, a patch for each.
func TestPatchForEachParent(t *testing.T) {
	for _, how := range []way{diffIDs, blobs, late, staged} {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			s, l := openSharing(t, Config{})
			first := l.mustPull(t, s, plain1, 0, 2)
			second := l.mustPull(t, s, how, 1, 2)
			a, errA := s.get(first[1])
			b, errB := s.get(second[1])
			if errA != nil || errB != nil || a.Layer != b.Layer || a.Patch == b.Patch || a.Patch == 0 || b.Patch == 0 {
				t.Errorf("%+v, %+v", a, b)
			}
			alone := l.mustPull(t, s, how, 2)
			if sn, err := s.get(alone[0]); err != nil || sn.Layer != a.Layer || sn.Patch != 0 {
				t.Errorf("on nothing: %+v, %v", sn, err)
			}
			removeAll(t, s, second)
			if err := l.check(s, first[1], []int{0, 2}); err != nil {
				t.Error(err)
			}
		})
	}
}

// What was extracted onto the layers below it serves nobody else.
func TestMountedFallbackIsNotShared(t *testing.T) {
	bothWays(t, func(t *testing.T, late bool) {
		s, l := open(t, Config{Staging: knowsStaging}), layers{}
		s.UseUnpacker(l)
		link := l.add(t, tar.Header{Typeflag: tar.TypeLink, Name: "g", Linkname: "f"})
		for _, base := range []string{"one", "two"} {
			l.unpack(t, s, base, "", false, l.add(t, file("f"), file(base)))
			l.unpack(t, s, base+"-top", base, late, link)
			m, err := s.store.ReadManifest(layerOf(t, s, base+"-top"))
			if err != nil || m.DiffID != "" {
				t.Errorf("%+v, %v", m, err)
			}
		}
		_, err := s.Prepare(ctx, "default/9/extract-x", "two", labels(snapshots.LabelSnapshotRef, "ref", snapshots.LabelSnapshotDiffID, link.Digest.String()))
		if err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// A layer that is shared among those that a patch is enough for is extracted once more
// where it is not, with the parent known and late.
func TestSharedLayerThatAnotherParentCannotUse(t *testing.T) {
	bothWays(t, func(t *testing.T, late bool) {
		s, l := open(t, Config{}), layers{}
		s.UseUnpacker(l)
		top := l.add(t, file("lib/x"))
		l.unpack(t, s, "dir", "", false, l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "lib/", Uid: 4}))
		l.unpack(t, s, "dir-top", "dir", late, top)
		l.unpack(t, s, "link", "", false, l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "usr/lib/"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib"}))
		l.unpack(t, s, "link-top", "link", late, top)
		if layerOf(t, s, "dir-top") == layerOf(t, s, "link-top") {
			t.Error("one layer for both")
		}
		mounted(t, prepare(t, s, "c", "link-top"), func(dir string) {
			if got := list(t, filepath.Join(dir, "usr/lib")); !slices.Equal(got, []string{"x"}) {
				t.Errorf("usr/lib holds %v", got)
			}
		})
		l.unpack(t, s, "dir2-top", "dir", late, top)
		if layerOf(t, s, "dir-top") != layerOf(t, s, "dir2-top") {
			t.Error("and not for the next on the first parent")
		}
	})
}

// Into snapshots that are no extractions others may have written. They never become
// or get a shared layer.
func TestOnlyExtractionsAreShared(t *testing.T) {
	s, l := openSharing(t, Config{})
	commitLayer(t, s, "root", "") // its mounts are an overlay then
	m := prepare(t, s, "default/1/by-hand", "root")
	if err := l.apply(t, s, m, l.descs[7]); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(upper(t, s, "default/1/by-hand"), "d/7"), "changed by hand")
	mustCommit(t, s, "by-hand", "default/1/by-hand")
	made := l.mustPull(t, s, diffIDs, 0, 7)
	if layerOf(t, s, made[1]) == layerOf(t, s, "by-hand") {
		t.Error("a directory that was written to is shared")
	}
	m = prepare(t, s, "default/2/by-hand", "root")
	if err := l.apply(t, s, m, l.descs[7]); err != nil {
		t.Fatal(err)
	}
	if sn, err := s.get("default/2/by-hand"); err != nil || sn.Layer != 0 {
		t.Errorf("%+v, %v", sn, err)
	}
	_, err := s.Prepare(ctx, "default/3/container", made[0], labels(snapshots.LabelSnapshotDiffID, l.descs[7].Digest.String()))
	if err != nil {
		t.Errorf("a container with a label of an extraction: %v", err)
	}
}

// The root of a mount looks as the topmost layer does. What stands on one that has metadata
// of its own is kept to that chain.
func TestParentWithARootOfItsOwn(t *testing.T) {
	s, l := openSharing(t, Config{})
	l.mustPull(t, s, plain1, 0, 7)
	prepare(t, s, "c", "")
	if err := os.Chmod(upper(t, s, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "base", "c")
	for i, how := range []way{diffIDs, blobs, plain1} {
		key, name := fmt.Sprintf("default/%d/extract-x", i), fmt.Sprintf("top-%d", i)
		opt := snapshots.WithLabels(l.labels([]int{0, 7}, how))
		if err := l.apply(t, s, prepare(t, s, key, "base", opt), l.descs[7]); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, s, name, key)
		m, err := s.store.ReadManifest(layerOf(t, s, name))
		if err != nil || m.DiffID != "" {
			t.Errorf("%+v, %v", m, err)
		}
	}
	// With the parent at Commit nothing of it is in the root, shared or extracted.
	opt := snapshots.WithLabels(l.labels([]int{0, 7}, staged))
	if m := prepare(t, s, "default/9/extract-x", "", opt); !m[0].ReadOnly() {
		t.Fatalf("%v", m)
	}
	mustCommit(t, s, "late", "default/9/extract-x", snapshots.WithParent("base"))
}

// Layers can be in a stack more than once, have nothing in them, or hide all below.
func TestOddStacks(t *testing.T) {
	for how := range ways {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			s, l := openSharing(t, Config{})
			for _, image := range [][]int{{7, 7, 7}, {4}, {4, 4, 0, 4}, {0, 6}, {0, 6, 2, 6, 3}, {2, 5, 2}, {3, 2, 3}, {0, 2, 1, 2, 5}} {
				l.mustPull(t, s, how, image...)
			}
			checkStore(t, s)
		})
	}
}

// An image with layers of the store's own and a directory that somebody deleted: the
// next image with that layer has it extracted, and says so of the first.
func TestSharedLayerWhoseDirectoryIsGone(t *testing.T) {
	for how := range ways {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			testutil.RequireRoot(t)
			root := filepath.Join(testutil.Tmpfs(t), "root")
			fscktest.AtEnd(t, root)
			fscktest.Damaged(root, fsck.CodeLayerMissing)
			s, err := New(ctx, Config{Root: root, Staging: knowsStaging})
			if err != nil {
				t.Fatal(err)
			}
			l := newLibrary(t)
			s.UseUnpacker(l)
			first := l.mustPull(t, s, plain1, 0, 7)
			if err := os.RemoveAll(filepath.Dir(s.store.LayerPath(layerOf(t, s, first[1])))); err != nil {
				t.Fatal(err)
			}
			l.mustPull(t, s, how, 1, 7)
			if err := l.check(s, first[1], []int{0, 7}); err == nil || !strings.Contains(err.Error(), "layers/") && !errdefs.IsUnavailable(err) {
				t.Errorf("the first image: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
