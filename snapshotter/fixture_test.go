// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/metadata"
)

// fixtureDir is set by make fixture: where TestMakeFixture writes a root of this version.
const fixtureDir = "STRATA_FIXTURE"

// remembered is what a fixture says of a snapshot.
type remembered struct {
	Kind   snapshots.Kind
	Parent string
	Usage  snapshots.Usage
	Labels map[string]string
	Tree   layertest.Tree `json:",omitempty"` // what it shows
}

// tarFlags keep what layers are made of.
var tarFlags = []string{"--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner"}

// TestMakeFixture is no test: make fixture has it write a root of this version, before a
// release that changes the format, for TestFixtures of all that come after it.
func TestMakeFixture(t *testing.T) {
	if os.Getenv(fixtureDir) == "" {
		return
	}
	path, err := filepath.Abs(filepath.Join(os.Getenv(fixtureDir), fmt.Sprintf("format-%d.tar.gz", metadata.FormatVersion)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s is there (%v): remove it if no release has written that format", path, err)
	}
	testutil.RequireTool(t, "tar")
	dir := testutil.Tmpfs(t)
	s, l := openSharing(t, Config{Root: filepath.Join(dir, "root")})
	fillFixture(t, s, l)
	text, err := json.MarshalIndent(remember(t, s), "", "\t")
	if err := errors.Join(err, s.Cleanup(ctx), s.Close(), os.WriteFile(filepath.Join(dir, "expected.json"), text, 0o644)); err != nil {
		t.Fatal(err)
	}
	args := append(slices.Clone(tarFlags), "--sort=name", "-C", dir, "-czf", path, "root", "expected.json")
	if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
}

// fillFixture makes every kind of snapshot on every kind of layer.
func fillFixture(t *testing.T, s *Snapshotter, l library) {
	t.Helper()
	first := l.mustPull(t, s, plain1, 0, 2, 7, 5)
	second := l.mustPull(t, s, diffIDs, 1, 2, 3) // the same layer with another patch
	third := l.mustPull(t, s, late, 7, 6, 3)     // an opaque root
	for key, parent := range map[string]string{"default/c/runs": first[3], "default/c/tmp": second[2], "default/c/fresh": ""} {
		mounted(t, prepare(t, s, key, parent), func(dir string) {
			write(t, filepath.Join(dir, "d/new"), key)
			if err := os.RemoveAll(filepath.Join(dir, "d/0")); err != nil {
				t.Error(err)
			}
			write(t, filepath.Join(dir, "made/again"), key)
		})
	}
	mustCommit(t, s, "default/c/committed", "default/c/tmp", labels("containerd.io/gc.root", "yes"))
	for key, parent := range map[string]string{"default/v/one": first[0], "default/v/many": third[2], "default/v/committed": "default/c/committed"} {
		if _, err := s.View(ctx, key, parent); err != nil {
			t.Fatal(err)
		}
	}
	staged := snapshots.WithLabels(l.labels([]int{1, 7}, staged))
	if m := prepare(t, s, "default/9/extract-x", "", staged); !m[0].ReadOnly() {
		t.Errorf("not staged: %v", m)
	}
}

// remember lists all snapshots, and what they show.
func remember(t *testing.T, s *Snapshotter) map[string]remembered {
	t.Helper()
	all := map[string]remembered{}
	err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		all[info.Name] = remembered{Kind: info.Kind, Parent: info.Parent, Labels: info.Labels}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range all {
		if r.Usage, err = s.Usage(ctx, name); err != nil {
			t.Error(err)
		}
		r.Usage.Size = 0 // of active snapshots it is what this file system takes
		var m []mount.Mount
		if r.Kind == snapshots.KindCommitted {
			m, err = s.View(ctx, "look", name)
		} else {
			m, err = s.Mounts(ctx, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		mounted(t, m, func(dir string) {
			if r.Tree, err = layertest.Dump(dir); err != nil {
				t.Error(err)
			}
		})
		if r.Kind == snapshots.KindCommitted {
			mustRemove(t, s, "look")
		}
		all[name] = r
	}
	return all
}

// unpackFixture returns a root that an earlier version wrote, and what was in it.
func unpackFixture(t *testing.T, file string) (root string, want map[string]remembered) {
	t.Helper()
	testutil.RequireRoot(t)
	testutil.RequireTool(t, "tar")
	dir := testutil.Tmpfs(t)
	args := append(slices.Clone(tarFlags), "-C", dir, "-xzpf", file)
	if out, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "expected.json"))
	if err := errors.Join(err, json.Unmarshal(text, &want)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "root"), want
}

func fixtures(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/format-*.tar.gz")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	return files
}

// A root of every earlier format opens: everything is there and shows what it showed, it
// can be used, and can be emptied.
func TestFixtures(t *testing.T) {
	for _, file := range fixtures(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			root, want := unpackFixture(t, file)
			report, err := fsck.Check(ctx, fsck.Options{Root: root})
			// What later versions record besides may be missing: a hint.
			if err != nil || report.Worst() != "" && report.Worst() != fsck.Hint {
				t.Fatalf("%+v, %v", report, err)
			}
			s, l := openSharing(t, Config{Root: root})
			compareFixture(t, want, remember(t, s))
			mustCommit(t, s, "default/c/later", "default/c/runs")
			l.mustPull(t, s, diffIDs, 1, 7, 2)
			emptyOut(t, s)
			if n := layerDirs(t, s); n != 0 {
				t.Errorf("%d layers of nobody", n)
			}
		})
	}
}

func compareFixture(t *testing.T, want, got map[string]remembered) {
	t.Helper()
	if a, b := slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)); !slices.Equal(a, b) {
		t.Errorf("snapshots %v, want %v", b, a)
	}
	for name, w := range want {
		g := got[name]
		if g.Kind != w.Kind || g.Parent != w.Parent || g.Usage != w.Usage || !maps.Equal(g.Labels, w.Labels) {
			t.Errorf("%s is %v, want %v", name, g, w)
		}
		for _, line := range w.Tree.Diff(g.Tree) {
			t.Errorf("%s: %s", name, line)
		}
	}
}

// A root of a newer version, or with a feature that this one does not know, is refused by
// everything that opens roots, and stays as it is to the last byte and timestamp. Only the
// lock file, which is no part of the format, names who tried.
func TestNewerRootsStayUntouched(t *testing.T) {
	for name, format := range map[string]metadata.Format{
		"newer":   {Version: metadata.FormatVersion + 1},
		"feature": {Version: metadata.FormatVersion, Incompatible: []string{"from the future"}},
	} {
		t.Run(name, func(t *testing.T) {
			root, _ := unpackFixture(t, fixtures(t)[0])
			setFormat(t, filepath.Join(root, "metadata.db"), format)
			for _, left := range []string{"staging/900/fs/x", "trash/901/fs/x", "layers/902/fs/x", "snapshots/903/fs/x"} {
				write(t, filepath.Join(root, left), left)
			}
			if err := os.Remove(filepath.Join(root, "external")); err != nil {
				t.Fatal(err)
			}
			before := allPaths(t, root)
			_, newErr := New(ctx, Config{Root: root})
			_, checkErr := fsck.Check(ctx, fsck.Options{Root: root})
			_, repairErr := fsck.Repair(ctx, fsck.Options{Root: root}, func(*fsck.Report) bool { return true })
			for _, err := range []error{newErr, checkErr, repairErr} {
				if !errdefs.IsFailedPrecondition(err) {
					t.Errorf("got %v", err)
				}
			}
			if after := allPaths(t, root); !maps.Equal(before, after) {
				for path := range before {
					if before[path] != after[path] {
						t.Errorf("%s was %s, is %s", path, before[path], after[path])
					}
				}
				t.Errorf("%d paths, then %d", len(before), len(after))
			}
		})
	}
}

func setFormat(t *testing.T, path string, format metadata.Format) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		text, err := json.Marshal(format)
		return errors.Join(err, tx.Bucket([]byte("meta")).Put([]byte("format"), text))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// allPaths is each path of a directory, with all that can be known of it.
func allPaths(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		var st unix.Stat_t
		if err := errors.Join(err, unix.Lstat(path, &st)); err != nil || rel == "lock" {
			return err
		}
		content := []byte{}
		if e.Type().IsRegular() {
			content, err = os.ReadFile(path)
		}
		all[rel] = fmt.Sprintf("%d %o %d:%d %d bytes %v %v %x", st.Ino, st.Mode, st.Uid, st.Gid, st.Size, st.Mtim, st.Ctim, sha256.Sum256(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
