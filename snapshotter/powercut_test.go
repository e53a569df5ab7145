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
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/metadata"
)

// A committed layer is whole after a power cut right after Commit: one that is synced
// file by file, one that has too many files for that, and those that were written by
// somebody else than our differ.
func TestCommittedLayersSurviveAPowerCut(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		for _, files := range []int{1, 40, 700} {
			t.Run(fmt.Sprint(fstype, " ", files, " files"), func(t *testing.T) {
				testutil.RequireRoot(t)
				dir := testutil.LoopFS(t, fstype, 400)
				s := openRoot(t, filepath.Join(dir, "root"))
				l := layers{}
				desc := l.add(t, manyFiles(files)...)
				l.unpack(t, s, "known", "", false, desc)
				l.unpack(t, s, "late", "known", true, l.add(t, append(manyFiles(files), tar.Header{Typeflag: tar.TypeSymlink, Name: "d/link", Linkname: "elsewhere"})...))
				writeForeign(t, s, files)
				want := layerTrees(t, s, "known", "late", "foreign")
				testutil.CutPower(t, dir, func() { _ = s.Close() }) // its disk is gone
				s = openRoot(t, filepath.Join(dir, "root"))
				defer closeRoot(t, s)
				for name, tree := range layerTrees(t, s, "known", "late", "foreign") {
					if !maps.Equal(tree, want[name]) {
						t.Errorf("layer of %q has %d entries after the cut, %d before, or they differ", name, len(tree), len(want[name]))
					}
				}
				checkIndexes(t, s, 2) // foreign has none
			})
		}
	}
}

// Layers that were extracted ahead are whole after a power cut from when Prepare said that
// they are there. Those that nobody asked for leave nothing.
func TestLayersAheadSurviveAPowerCut(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		for _, files := range []int{1, 40, 700} {
			t.Run(fmt.Sprint(fstype, " ", files, " files"), func(t *testing.T) {
				testutil.RequireRoot(t)
				dir := testutil.LoopFS(t, fstype, 400)
				root := filepath.Join(dir, "root")
				fscktest.AtEnd(t, root)
				s, err := New(ctx, Config{Root: root, UnpackAhead: 1})
				if err != nil {
					t.Fatal(err)
				}
				l, names := layers{}, []string{"default/1/extract-a", "default/2/extract-b"}
				var all []AheadLayer
				ahead := func(below digest.Digest) {
					desc := l.add(t, append(manyFiles(files), file(fmt.Sprint(len(all))))...)
					next := AheadLayer{Namespace: "default", Blob: desc, DiffID: desc.Digest, ChainID: desc.Digest, Below: below}
					if err := s.Ahead(ctx, next, l.extractAlone(desc)); err != nil {
						t.Fatal(err)
					}
					all = append(all, next)
				}
				ask := func(i int) {
					if _, err := s.Prepare(ctx, names[i], "", labels(snapshots.LabelSnapshotRef, all[i].ChainID.String())); !errdefs.IsAlreadyExists(err) {
						t.Fatalf("got %v", err)
					}
				}
				ahead("")
				ahead("")
				ask(1)    // one wait for both
				ahead("") // is not asked for
				ahead(all[0].ChainID)
				ask(0) // and what comes next on it
				above, err := findRef(s, all[3].ChainID.String(), names[0])
				if err != nil || len(above) != 1 {
					t.Fatalf("found %v, %v", above, err)
				}
				recorded := slices.Concat(above, names)
				want := layerTrees(t, s, recorded...)
				testutil.CutPower(t, dir, func() { _ = s.Close() }) // its disk is gone
				s = openRoot(t, root)
				defer closeRoot(t, s)
				for name, tree := range layerTrees(t, s, recorded...) {
					if len(tree) < files || !maps.Equal(tree, want[name]) {
						t.Errorf("layer of %q has %d entries after the cut, %d before, or they differ", name, len(tree), len(want[name]))
					}
				}
				checkIndexes(t, s, 3)
				if n := layerDirs(t, s); n != 3 {
					t.Errorf("%d layers, want 3", n)
				}
			})
		}
	}
}

// checkIndexes holds every layer against its index, and wants that many to have one.
func checkIndexes(t *testing.T, s *Snapshotter, want int) {
	t.Helper()
	layers, err := s.LayerNumbers()
	if err != nil {
		t.Fatal(err)
	}
	indexed := 0
	for _, n := range layers {
		v, err := s.VerifyLayer(ctx, n, nil)
		if err != nil || v.Damaged != nil || len(v.Problems) > 0 {
			t.Errorf("layer %d: %v, %v, %s", n, err, v.Damaged, v.Problems)
		}
		if v.Indexed {
			indexed++
		}
	}
	if indexed != want {
		t.Errorf("%d of %d layers have an index, want %d", indexed, len(layers), want)
	}
}

func openRoot(t *testing.T, root string) *Snapshotter {
	t.Helper()
	fscktest.AtEnd(t, root)
	s, err := New(context.Background(), Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeRoot(t *testing.T, s *Snapshotter) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func manyFiles(n int) []tar.Header {
	headers := []tar.Header{{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o751}}
	for i := range n {
		headers = append(headers, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d/file-%d", i), Uid: i})
	}
	return headers
}

// writeForeign commits what another differ, or a container, wrote.
func writeForeign(t *testing.T, s *Snapshotter, files int) {
	t.Helper()
	prepare(t, s, "default/1/extract-foreign", "known")
	// Not through a mount: unmounting an overlay syncs what is below.
	for i := range files {
		write(t, filepath.Join(upper(t, s, "default/1/extract-foreign"), fmt.Sprintf("more/file-%d", i)), fmt.Sprint(i))
	}
	mustCommit(t, s, "foreign", "default/1/extract-foreign")
}

// layerTrees reads what committed snapshots add: what a file is and what is in it.
func layerTrees(t *testing.T, s *Snapshotter, names ...string) map[string]map[string]string {
	t.Helper()
	trees := map[string]map[string]string{}
	for _, name := range names {
		info, err := s.Stat(ctx, name)
		if err != nil || info.Kind != snapshots.KindCommitted {
			t.Fatalf("%q: %v, %v", name, info.Kind, err)
		}
		var layer uint64
		err = s.meta.View(func(tx *metadata.Tx) error {
			found, err := tx.Get(name)
			layer = found.Layer
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		trees[name] = readTree(t, s.store.LayerPath(layer))
	}
	return trees
}

func readTree(t *testing.T, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		what := fmt.Sprint(info.Mode(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += string(b)
		}
		tree[path] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}
