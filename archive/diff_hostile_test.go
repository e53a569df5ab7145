// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"golang.org/x/sys/unix"
)

// diffHook does something once, at the first write. The buffer before it is
// larger than small entries: by then a large file is being read.
type diffHook struct {
	io.Writer
	do func()
}

func (h *diffHook) Write(b []byte) (int, error) {
	if h.do != nil {
		h.do()
		h.do = nil
	}
	return h.Writer.Write(b)
}

// Something happens while the large file "m" is read, which comes after "a" and
// before "n" and "z".
func TestDiffWhileWrittenTo(t *testing.T) {
	const size = 2 << 20
	for _, tc := range []struct {
		name   string
		change func(f diffFS)
		want   string // "" for an error
	}{
		{"nothing", func(diffFS) {}, "0 a|0 m|5 n/|0 n/x|0 z"},
		{"shrinks", func(f diffFS) { diffMust(f.t, os.Truncate(f.at("m"), 1<<20)) }, ""},
		{"emptied", func(f diffFS) { diffMust(f.t, os.Truncate(f.at("m"), 0)) }, ""},
		{"grows", func(f diffFS) { diffMust(f.t, os.Truncate(f.at("m"), 2*size)) }, "0 a|0 m|5 n/|0 n/x|0 z"},
		{"is deleted", func(f diffFS) { f.remove("m") }, "0 a|0 m|5 n/|0 n/x|0 z"},
		{"others go", func(f diffFS) { f.remove("z"); f.remove("n") }, "0 a|0 m"},
		{"file becomes a link", func(f diffFS) { f.remove("z"); f.symlink("/etc/passwd", "z") }, "0 a|0 m|5 n/|0 n/x|2 z -> /etc/passwd"},
		{"file becomes a fifo", func(f diffFS) { f.remove("z"); f.mknod("z", unix.S_IFIFO|0o600, 0, 0) }, "0 a|0 m|5 n/|0 n/x|6 z"},
		{"directory becomes a link", func(f diffFS) { f.remove("n"); f.symlink("/etc", "n") }, "0 a|0 m|2 n -> /etc|0 z"},
		{"file becomes a directory", func(f diffFS) { f.remove("z"); f.mkdir("z"); f.write("z/y", "") }, "0 a|0 m|5 n/|0 n/x|5 z/|0 z/y"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			testutil.RequireRoot(t)
			f := diffFS{t, t.TempDir()}
			f.write("a", "")
			f.write("m", strings.Repeat("m", size))
			f.mkdir("n")
			f.write("n/x", "")
			f.write("z", "z")
			var buf bytes.Buffer
			_, err := Diff(t.Context(), &diffHook{&buf, func() { tc.change(f) }}, Upper{Dir: diffOpen(t, f.root)}, DiffOptions{})
			if tc.want == "" {
				if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), `"m"`) {
					t.Fatalf("error %v", err)
				}
				return
			}
			diffMust(t, err)
			if got := strings.Join(diffEntries(t, buf.Bytes()), "|"); got != tc.want {
				t.Fatalf("got %s, want %s", got, tc.want)
			}
			if m := diffContents(t, buf.Bytes())["m"]; len(m) != size {
				t.Fatalf("m has %d bytes", len(m))
			}
		})
	}
}

// Somebody swaps a name between a file, a link out of the tree, a fifo and a
// directory as fast as they can. Nothing hangs, nothing from outside comes out.
func TestDiffAgainstSwaps(t *testing.T) {
	testutil.RequireRoot(t)
	outside := diffFS{t, t.TempDir()}
	outside.write("secret", "the secret")
	f := diffFS{t, t.TempDir()}
	f.mkdir("x/dir")
	f.mkdir("out")
	diffMust(t, os.WriteFile(f.at("x/file"), []byte("plain"), 0o600))
	f.symlink(outside.at("secret"), "x/link")
	f.symlink(outside.root, "x/dirlink")
	f.mknod("x/fifo", unix.S_IFIFO|0o600, 0, 0)
	f.write("x/dir/secret", "not it")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		swapForever(f.root, stop)
	}()
	for range 300 {
		var buf bytes.Buffer
		_, err := Diff(t.Context(), &buf, Upper{Dir: diffOpen(t, f.root)}, DiffOptions{})
		if err != nil && !errdefs.IsUnavailable(err) {
			t.Errorf("error %v", err)
		}
		if bytes.Contains(buf.Bytes(), []byte("the secret")) {
			t.Error("something from outside the directory is in the layer")
		}
	}
	close(stop)
	<-done
}

// swapForever exchanges "out" with each of the files in x in turn.
func swapForever(root string, stop <-chan struct{}) {
	names := []string{"file", "link", "fifo", "dirlink", "dir"}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		other := filepath.Join(root, "x", names[i%len(names)])
		_ = unix.Renameat2(unix.AT_FDCWD, other, unix.AT_FDCWD, filepath.Join(root, "out"), unix.RENAME_EXCHANGE)
	}
}

// deepDir makes depth directories in one another, each with a file after it.
func deepDir(t *testing.T, root string, depth int) {
	t.Helper()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	diffMust(t, err)
	for range depth {
		diffMust(t, unix.Mkdirat(fd, "dir", 0o755))
		diffMust(t, unix.Mknodat(fd, "file", unix.S_IFREG|0o644, 0))
		next, err := unix.Openat(fd, "dir", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		diffMust(t, err)
		diffMust(t, unix.Close(fd))
		fd = next
	}
	large, err := unix.Openat(fd, "large", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	diffMust(t, err)
	diffMust(t, errors.Join(unix.Ftruncate(large, 8<<20), unix.Close(large), unix.Close(fd)))
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	diffMust(t, err)
	return len(fds)
}

// A container can nest directories deeper than a path can name. The walk keeps
// some of them open, and all the files on the way up are in the layer.
func TestDiffDeep(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	const depth = 1500
	deepDir(t, root, depth)
	before, during := openFiles(t), 0
	hook := diffHook{io.Discard, func() { during = openFiles(t) }}
	res, err := Diff(t.Context(), &hook, Upper{Dir: diffOpen(t, root), Parent: diffOpen(t, root)}, DiffOptions{})
	diffMust(t, err)
	if res.Entries != 0 {
		t.Errorf("%d entries of a directory compared with itself", res.Entries)
	}
	hook.do = func() { during = openFiles(t) }
	res, err = Diff(t.Context(), &hook, Upper{Dir: diffOpen(t, root)}, DiffOptions{})
	diffMust(t, err)
	if want := int64(2*depth + 1); res.Entries != want {
		t.Errorf("%d entries, want %d", res.Entries, want)
	}
	if during > before+2*diffDirWindow {
		t.Errorf("%d files open at the deepest, %d before", during, before)
	}
	if after := openFiles(t); after > before+8 {
		t.Errorf("%d files open at the end, %d before", after, before)
	}
}

// The way back up leads through a directory that is another one by now.
func TestDiffDeepMoved(t *testing.T) {
	testutil.RequireRoot(t)
	f := diffFS{t, t.TempDir()}
	deepDir(t, f.root, 300)
	const middle = "dir/dir/dir"
	hook := diffHook{io.Discard, func() {
		f.rename(middle, "dir/moved")
		f.symlink("/etc", middle)
	}}
	_, err := Diff(t.Context(), &hook, Upper{Dir: diffOpen(t, f.root)}, DiffOptions{})
	if !errdefs.IsUnavailable(err) {
		t.Fatalf("error %v", err)
	}
}

func TestDiffTooDeep(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	deepDir(t, root, DefaultLimits().Depth+1)
	_, err := Diff(t.Context(), io.Discard, Upper{Dir: diffOpen(t, root)}, DiffOptions{})
	if !errdefs.IsResourceExhausted(err) {
		t.Fatalf("error %v", err)
	}
}

// An error in the middle leaves no descriptor behind.
func TestDiffClosesOnError(t *testing.T) {
	testutil.RequireRoot(t)
	f := diffFS{t, t.TempDir()}
	f.mkdir("a/b/c")
	f.write("a/b/c/.wh.x", "")
	up, parent := diffOpen(t, f.root), diffOpen(t, f.root)
	before := openFiles(t)
	for range 20 {
		if _, err := Diff(t.Context(), io.Discard, Upper{Dir: up, Parent: parent}, DiffOptions{}); !errors.Is(err, ErrUnsure) {
			t.Fatal(err)
		}
	}
	if after := openFiles(t); after > before+2 {
		t.Fatalf("%d descriptors became %d", before, after)
	}
}
