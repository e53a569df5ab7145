// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/continuity/fs"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"golang.org/x/sys/unix"
)

// fill makes a tree with everything that can be in a layer.
func fill(t *testing.T, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "a/b/file"), strings.Repeat("x", 10_000))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Link(filepath.Join(dir, "a/b/file"), filepath.Join(dir, "hard")))
	must(os.Symlink("/etc/passwd", filepath.Join(dir, "soft")))
	must(os.Symlink("/", filepath.Join(dir, "a/root")))
	must(unix.Mknod(filepath.Join(dir, "whiteout"), unix.S_IFCHR, 0))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	f, err := os.Create(filepath.Join(dir, "sparse"))
	must(err)
	must(f.Truncate(1 << 30))
	must(f.Close())
	must(os.Mkdir(filepath.Join(dir, "closed"), 0))
}

func TestMeasureIsWhatDuSays(t *testing.T) {
	s := openStore(t)
	makeSnapshot(t, s, 1)
	fill(t, s.UpperPath(1))
	got, err := s.Measure(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	want, err := fs.DiskUsage(context.Background(), s.UpperPath(1))
	if err != nil {
		t.Fatal(err)
	}
	if got.Bytes != want.Size || got.Inodes != want.Inodes || got.Empty {
		t.Errorf("got %+v, du says %+v", got, want)
	}
}

func TestSealKnowsAnEmptyLayer(t *testing.T) {
	s := openStore(t)
	n := uint64(0)
	for name, tc := range map[string]struct {
		change func(upper string) error
		empty  bool
	}{
		"untouched": {func(string) error { return nil }, true},
		"a file":    {func(u string) error { return os.WriteFile(filepath.Join(u, "f"), nil, 0o600) }, false},
		"mode":      {func(u string) error { return os.Chmod(u, 0o700) }, false},
		"owner":     {func(u string) error { return os.Chown(u, 1, 0) }, false},
		"xattr":     {func(u string) error { return unix.Setxattr(u, "user.x", nil, 0) }, false},
	} {
		n++
		makeSnapshot(t, s, n)
		if err := tc.change(s.UpperPath(n)); err != nil {
			t.Fatal(err)
		}
		c, err := s.Seal(context.Background(), n)
		if err != nil || c.Empty != tc.empty {
			t.Errorf("%s: empty %v (%v)", name, c.Empty, err)
		}
	}
}

// Both ways of syncing must cope with everything that can be in a tree.
func TestSealSyncs(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			testutil.RequireRoot(t)
			dir := testutil.LoopFS(t, fstype, 320)
			s, err := Open(Config{Root: filepath.Join(dir, "root")})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}()
			if !s.inOrder {
				t.Errorf("%s with a journal is not recognised", fstype)
			}
			makeSnapshot(t, s, 1)
			fill(t, s.UpperPath(1))
			for i, files := range []int{1, maxFilesToSync + 10} {
				for j := range files {
					write(t, filepath.Join(s.UpperPath(1), fmt.Sprintf("more/%d-%d", i, j)), "x")
				}
				if _, err := s.Seal(context.Background(), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestNoJournalIsNotInOrder(t *testing.T) {
	testutil.RequireRoot(t)
	dir, err := os.Open(testutil.LoopFS(t, "ext4", 64, "-O", "^has_journal"))
	if err != nil {
		t.Fatal(err)
	}
	if writesInOrder(dir) {
		t.Error("an ext4 without a journal is said to write in order")
	}
	if err := dir.Close(); err != nil {
		t.Error(err)
	}
}

func TestFileListForgetsWhenThereAreTooMany(t *testing.T) {
	var l fileList
	for i := range maxFilesToSync {
		l.add(fmt.Sprint(i))
	}
	if l.many || len(l.paths) != maxFilesToSync {
		t.Errorf("%d files: many %v, %d kept", maxFilesToSync, l.many, len(l.paths))
	}
	l.add("one more")
	if !l.many || l.paths != nil {
		t.Errorf("one more: many %v, %d kept", l.many, len(l.paths))
	}
}

func TestMeasureStopsWithItsContext(t *testing.T) {
	s := openStore(t)
	makeSnapshot(t, s, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Measure(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A tree deeper than PATH_MAX, and deeper than a process may have files open.
func TestDeepTree(t *testing.T) {
	s := openStore(t)
	makeSnapshot(t, s, 1)
	const depth = 3000
	dir, err := os.Open(s.UpperPath(1))
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := mkdir(dir, "directory", 0o755); err != nil {
			t.Fatal(err)
		}
		sub, err := openDir(int(dir.Fd()), "directory")
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.Close(); err != nil {
			t.Fatal(err)
		}
		dir = sub
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}()
	c, err := s.Seal(context.Background(), 1)
	if err != nil || c.Inodes != depth+1 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := s.TrashSnapshot(1); err != nil {
		t.Fatal(err)
	}
	emptyTrash(t, s)
}

func TestOpenBeneathStaysBeneath(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"in/side", "out"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"up": "../out", "abs": filepath.Join(dir, "out"), "self": "side"} {
		if err := os.Symlink(target, filepath.Join(dir, "in", name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // a directory opened for reading
	for rel, ok := range map[string]bool{".": true, "side": true, "up": false, "abs": false, "self": false, "../out": false, "none": false, "/": false} {
		f, err := openBeneath(root, rel)
		if (err == nil) != ok {
			t.Errorf("%s: %v", rel, err)
		}
		if err == nil {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
		fd, err := openByComponent(root, rel)
		if rel != "../out" && rel != "/" && (err == nil) != ok { // those two never come to it
			t.Errorf("by component, %s: %v", rel, err)
		}
		if err == nil {
			if err := unix.Close(fd); err != nil {
				t.Error(err)
			}
		}
	}
}
