// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"golang.org/x/sys/unix"
)

var ctx = context.Background()

// open opens a root that is checked, and looked over for mounts, at the end.
func open(t *testing.T, cfg Config) *Snapshotter {
	t.Helper()
	testutil.RequireRoot(t)
	if cfg.Root == "" {
		cfg.Root = filepath.Join(t.TempDir(), "root")
	}
	fscktest.AtEnd(t, cfg.Root)
	s, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.Stat(ctx, "x"); !errdefs.IsUnavailable(err) { // not closed by the test
			checkStore(t, s)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	testutil.CheckNoMounts(t, cfg.Root)
	return s
}

func prepare(t *testing.T, s *Snapshotter, key, parent string, opts ...snapshots.Opt) []mount.Mount {
	t.Helper()
	m, err := s.Prepare(ctx, key, parent, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustCommit(t *testing.T, s *Snapshotter, name, key string, opts ...snapshots.Opt) {
	t.Helper()
	if err := s.Commit(ctx, name, key, opts...); err != nil {
		t.Fatal(err)
	}
}

func mustRemove(t *testing.T, s *Snapshotter, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if err := s.Remove(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
}

// upper returns the directory that a snapshot's changes go to.
func upper(t *testing.T, s *Snapshotter, key string) string {
	t.Helper()
	sn, err := s.get(key)
	if err != nil {
		t.Fatal(err)
	}
	if sn.Kind == snapshots.KindCommitted {
		return s.store.LayerPath(sn.Layer)
	}
	return s.store.UpperPath(sn.Number)
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// commitLayer makes a committed snapshot that adds one file, named after it.
func commitLayer(t *testing.T, s *Snapshotter, name, parent string) {
	t.Helper()
	prepare(t, s, name+"-tmp", parent)
	write(t, filepath.Join(upper(t, s, name+"-tmp"), name), name)
	mustCommit(t, s, name, name+"-tmp")
}

// mounted mounts m while fn runs.
func mounted(t *testing.T, m []mount.Mount, fn func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	if err := mount.All(m, dir); err != nil {
		t.Fatalf("mount %v: %v", m, err)
	}
	defer func() {
		if err := mount.UnmountAll(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	fn(dir)
}

func labels(kv ...string) snapshots.Opt {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return snapshots.WithLabels(m)
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func unmount(path string) error { return unix.Unmount(path, unix.UMOUNT_NOFOLLOW) }
