// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"golang.org/x/sys/unix"
)

var ctx = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// extract makes the directory of a layer with our own differ. The caller closes
// the layer's Dir.
func extract(dir string, layer layertest.Layer) (l Layer, err error) {
	blob, err := layer.Tar()
	if err != nil {
		return l, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return l, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return l, err
	}
	r, err := archive.Apply(ctx, archive.FromReader(bytes.NewReader(blob)), f, archive.Options{})
	if err != nil {
		return l, errors.Join(err, f.Close())
	}
	return Layer{
		DiffID: r.DiffID, Size: r.Size, Dir: f, Bytes: max(r.Bytes, 0), Inodes: max(r.Inodes, 1), Empty: r.Empty, OpaqueRoot: r.OpaqueRoot,
		Needs: r.Needs,
	}, nil
}

func mustExtract(t *testing.T, layer layertest.Layer) Layer {
	t.Helper()
	testutil.RequireRoot(t)
	l, err := extract(filepath.Join(t.TempDir(), "layer"), layer)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

// rich is a layer with everything that a layer can have.
func rich() layertest.Layer {
	return layertest.Layer{
		layertest.Dir("etc").Perm(0o2750).Owner(0, 42),
		layertest.File("etc/passwd", "root:x:0:0").Xattr("user.note", "a b\n=,").At(1_111_111_111, 123456789),
		layertest.File("etc/su", "setuid").Perm(0o4755).Owner(0, 7),
		layertest.Hardlink("etc/su2", "etc/su").Perm(0o4755).Owner(0, 7),
		layertest.Symlink("etc/mtab", "../proc/self/mounts").Owner(5, 7),
		layertest.Whiteout("etc/gone"),
		layertest.Opaque("etc/opaque"),
		layertest.File("etc/opaque/f\xff name", "x"),
		layertest.Device(layertest.TypeBlock, "dev/sda", 8, 0),
		layertest.Device(layertest.TypeChar, "dev/null", 1, 3).Perm(0o666),
		layertest.Fifo("run/pipe"),
		layertest.Dir("tmp").Perm(0o1777),
		layertest.Dir("usr").Xattr("user.d", "\x00\x01"),
		layertest.File("usr/large", string(bytes.Repeat([]byte("0123456789abcdef"), 70_000))),
	}
}

// warnings are what a Set says.
type warnings []string

func (w *warnings) add(text string) { *w = append(*w, text) }

func openSet(t testing.TB, verify Verify, paths ...string) (*Set, *warnings) {
	t.Helper()
	var w warnings
	s, err := Open(Options{Paths: paths, Verify: verify, Warn: w.add})
	must(t, err)
	return s, &w
}

func found(t testing.TB, s *Set, diffID digest.Digest) *Layer {
	t.Helper()
	l, err := s.Lookup(ctx, diffID)
	if err != nil {
		t.Fatalf("not found: %v", err)
	}
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}

func notFound(t testing.TB, s *Set, diffID digest.Digest) {
	t.Helper()
	l, err := s.Lookup(ctx, diffID)
	if err == nil {
		_ = l.Close()
	}
	if !errdefs.IsNotFound(err) {
		t.Fatalf("found, or %v", err)
	}
}

func dump(t testing.TB, dir string) layertest.Tree {
	t.Helper()
	tree, err := layertest.Dump(dir)
	must(t, err)
	return tree
}

// mtimes are what a dump does not show of new files.
func mtimes(t testing.TB, dir string) map[string]unix.Timespec {
	t.Helper()
	times := map[string]unix.Timespec{}
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		err = unix.Lstat(path, &st)
		times[path[len(dir):]] = st.Mtim
		return err
	}))
	return times
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	slices.Sort(list)
	return list
}
