// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// A root whose log is ahead when the power is cut is sound, whatever is in metadata.db: a
// check finds nothing and changes nothing, a repair puts other things right, and nothing
// is lost.
func TestRootAfterAPowerCut(t *testing.T) {
	testutil.RequireRoot(t)
	dir := testutil.Tmpfs(t)
	root := filepath.Join(dir, "crashed")
	names := crashedRoot(t, filepath.Join(dir, "root"), root)
	database := filepath.Join(root, "metadata.db")
	before, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	r, err := fsck.Check(ctx, fsck.Options{Root: root})
	if err != nil || len(r.Findings) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if after, err := os.ReadFile(database); err != nil || string(after) != string(before) {
		t.Errorf("the check changed metadata.db (%v)", err)
	}
	if err := os.Chmod(filepath.Join(root, "layers"), 0o755); err != nil {
		t.Fatal(err)
	}
	r, err = fsck.Repair(ctx, fsck.Options{Root: root}, func(*fsck.Report) bool { return true })
	if err != nil || r.Worst() == fsck.Damage {
		t.Fatalf("%+v, %v", r, err)
	}
	s, err := snapshotter.New(ctx, snapshotter.Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := s.Stat(ctx, name); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if r, err := fsck.Check(ctx, fsck.Options{Root: root}); err != nil || len(r.Findings) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// crashedRoot makes a root, and copies it while it is open. What bbolt did not sync is lost
// in the copy.
func crashedRoot(t *testing.T, from, to string) (names []string) {
	t.Helper()
	s, err := snapshotter.New(ctx, snapshotter.Config{Root: from})
	if err != nil {
		t.Fatal(err)
	}
	parent := ""
	for i := range 12 {
		key, name := fmt.Sprint("key-", i), fmt.Sprint("name-", i)
		if _, err := s.Prepare(ctx, key, parent); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(ctx, name, key, snapshots.WithLabels(map[string]string{"containerd.io/i": name})); err != nil {
			t.Fatal(err)
		}
		names, parent = append(names, name), name
	}
	if _, err := s.Prepare(ctx, "active", parent); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	database := filepath.Join(to, "metadata.db")
	b, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[2*os.Getpagesize():])
	if err := os.WriteFile(database, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return append(names, "active")
}
