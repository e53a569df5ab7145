// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// The marks of an upper directory, one by one, without a kernel that made them.
func TestDiffMarks(t *testing.T) {
	const unsure = "unsure"
	for _, tc := range []struct {
		name  string
		upper func(f diffFS)
		want  string
	}{
		{"whiteout", func(f diffFS) { f.mknod("a", unix.S_IFCHR, 0, 0) }, "0 .wh.a"},
		{"whiteout of nothing", func(f diffFS) { f.mknod("none", unix.S_IFCHR, 0, 0) }, ""},
		{"whiteout below a file", func(f diffFS) { f.mkdir("a"); f.mknod("a/x", unix.S_IFCHR, 0, 0) }, "5 a/"},
		{"whiteout in an opaque directory", func(f diffFS) {
			f.mkdir("e")
			f.setxattr("e", "trusted.overlay.opaque", "y")
			f.mknod("e/five", unix.S_IFCHR, 0, 0)
		}, "5 e/|0 e/.wh..wh..opq"},
		{"whiteout in xattr form", func(f diffFS) {
			f.mkdir("e")
			f.setxattr("e", "trusted.overlay.opaque", "x")
			f.write("e/five", "")
			f.setxattr("e/five", "trusted.overlay.whiteout", "y")
		}, "5 e/|0 e/.wh.five"},
		{"opaque over nothing", func(f diffFS) { f.mkdir("new"); f.setxattr("new", "trusted.overlay.opaque", "y") }, "5 new/"},
		{"opaque over a file", func(f diffFS) { f.mkdir("a"); f.setxattr("a", "trusted.overlay.opaque", "y") }, "5 a/"},
		{"opaque below an opaque one", func(f diffFS) {
			f.mkdir("d/sub")
			f.setxattr("d", "trusted.overlay.opaque", "y")
			f.setxattr("d", "user.of", "d")
			f.setxattr("d/sub", "trusted.overlay.opaque", "y")
		}, "5 d/|0 d/.wh..wh..opq|5 d/sub/"},
		{"opaque and redirect", func(f diffFS) {
			f.mkdir("n")
			f.setxattr("n", "trusted.overlay.opaque", "y")
			f.setxattr("n", "trusted.overlay.redirect", "/d")
		}, "5 n/"},
		{"marks without a meaning", func(f diffFS) {
			f.write("n", "")
			for _, mark := range []string{"origin", "impure", "uuid", "overlay.opaque"} {
				f.setxattr("n", "trusted.overlay."+mark, "?")
			}
			f.setxattr("n", "trusted.mine", "1")
			f.setxattr("n", "user.overlay.opaque", "y")
		}, "0 n"},
		{"redirect of a file that has its content", func(f diffFS) { f.write("n", "n"); f.setxattr("n", "trusted.overlay.redirect", "/none") }, "0 n"},
		{"opaque root", func(f diffFS) { f.setxattr("", "trusted.overlay.opaque", "y") }, unsure},
		{"opaque in a way not known", func(f diffFS) { f.mkdir("e"); f.setxattr("e", "trusted.overlay.opaque", "z") }, unsure},
		{"mark not known", func(f diffFS) { f.write("n", ""); f.setxattr("n", "trusted.overlay.news", "1") }, unsure},
		{"mark on a link", func(f diffFS) { f.symlink("x", "n"); f.setxattr("n", "trusted.overlay.nlink", "U+1") }, unsure},
		{"hard link kept by the index", func(f diffFS) { f.write("n", ""); f.setxattr("n", "trusted.overlay.nlink", "U+1") }, unsure},
		{"whiteout with content", func(f diffFS) { f.write("a", "x"); f.setxattr("a", "trusted.overlay.whiteout", "") }, unsure},
		{"redirect to nothing", func(f diffFS) { f.mkdir("n"); f.setxattr("n", "trusted.overlay.redirect", "/none") }, unsure},
		{"redirect to a file", func(f diffFS) { f.mkdir("n"); f.setxattr("n", "trusted.overlay.redirect", "a") }, unsure},
		{"redirect through a link", func(f diffFS) { f.mkdir("n"); f.setxattr("n", "trusted.overlay.redirect", "/s/sub") }, unsure},
		{"redirect out of the parent", func(f diffFS) { f.mkdir("n"); f.setxattr("n", "trusted.overlay.redirect", "/../base/d") }, unsure},
		{"redirect up", func(f diffFS) { f.mkdir("n"); f.setxattr("n", "trusted.overlay.redirect", "..") }, unsure},
		{"redirect below a new directory", func(f diffFS) { f.mkdir("n/m"); f.setxattr("n/m", "trusted.overlay.redirect", "d") }, unsure},
		{"metacopy of another size", func(f diffFS) { f.write("a", "x"); f.setxattr("a", "trusted.overlay.metacopy", "") }, unsure},
		{"metacopy of nothing", func(f diffFS) { f.write("n", ""); f.setxattr("n", "trusted.overlay.metacopy", "") }, unsure},
		{"metacopy of a link", func(f diffFS) { f.write("s", "x"); f.setxattr("s", "trusted.overlay.metacopy", "") }, unsure},
		{"name of a whiteout", func(f diffFS) { f.write(".wh.x", "") }, unsure},
		{"owner in an attribute", func(f diffFS) { f.write("n", ""); f.setxattr("n", overrideStat, "0:0:0644") }, unsure},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newDiffStack(t, nil, diffBase(t))
			testMarks(t, s, tc.upper)
			layer, _, err := diffDirs(t, filepath.Join(s.dir, "marks"), s.parent, DiffOptions{})
			if tc.want == unsure {
				if !errors.Is(err, ErrUnsure) || !errdefs.IsNotImplemented(err) {
					t.Fatalf("error %v", err)
				}
				return
			}
			diffMust(t, err)
			if got := strings.Join(diffEntries(t, layer), "|"); got != tc.want {
				t.Fatalf("got %s, want %s", got, tc.want)
			}
		})
	}
}

// testMarks makes an upper directory by hand, beside the one that is mounted.
func testMarks(t *testing.T, s *diffStack, upper func(f diffFS)) {
	f := diffFS{t, filepath.Join(s.dir, "marks")}
	f.mkdir("")
	upper(f)
}

// With nothing below, marks mean nothing, and what needs what is below can't be.
func TestDiffWithoutParent(t *testing.T) {
	testutil.RequireRoot(t)
	f := diffFS{t, t.TempDir()}
	f.mkdir("d")
	f.setxattr("d", "trusted.overlay.opaque", "y")
	f.setxattr("", "trusted.overlay.opaque", "y")
	f.mknod("gone", unix.S_IFCHR, 0, 0)
	f.write("d/f", "f")
	layer, _, err := diffDirs(t, f.root, "", DiffOptions{})
	diffMust(t, err)
	if got := strings.Join(diffEntries(t, layer), "|"); got != "5 d/|0 d/f" {
		t.Fatal(got)
	}
	f.setxattr("d/f", "trusted.overlay.metacopy", "")
	if _, _, err := diffDirs(t, f.root, "", DiffOptions{}); !errors.Is(err, ErrUnsure) {
		t.Fatalf("metacopy without a parent: %v", err)
	}
	f.remove("d/f")
	f.remove("d")
	f.mkdir("d")
	f.setxattr("d", "trusted.overlay.redirect", "/x")
	if _, _, err := diffDirs(t, f.root, "", DiffOptions{}); !errors.Is(err, ErrUnsure) {
		t.Fatalf("redirect without a parent: %v", err)
	}
}

// The kernel follows neither with userxattr.
func TestDiffUserXattrsAreNotFollowed(t *testing.T) {
	for _, mark := range []string{"redirect", "metacopy"} {
		f := diffFS{t, t.TempDir()}
		f.mkdir("d")
		if mark == "metacopy" {
			f.remove("d")
			f.write("d", "")
		}
		f.setxattr("d", "user.overlay."+mark, "/x")
		up := Upper{Dir: diffOpen(t, f.root), Parent: diffOpen(t, f.root), Xattrs: overlayutil.User}
		if _, err := Diff(t.Context(), io.Discard, up, DiffOptions{}); !errors.Is(err, ErrUnsure) {
			t.Errorf("%s: %v", mark, err)
		}
	}
}

func TestDiffInUserNS(t *testing.T) {
	if !testutil.InUserNS(t, 0) {
		return
	}
	if _, _, err := diffDirs(t, t.TempDir(), "", DiffOptions{}); !errors.Is(err, ErrUnsure) {
		t.Fatalf("trusted attributes can't be seen here, but: %v", err)
	}
	s := newDiffStack(t, []string{"userxattr"}, func(root string) {
		f := diffFS{t, root}
		f.mkdir("d/sub")
		f.write("d/sub/x", "x")
		f.write("a", "a")
	})
	f := diffFS{t, s.merged}
	f.remove("d/sub")
	f.mkdir("d/sub")
	f.remove("a")
	f.write("b", "b")
	f.chown("b", 7)
	f.setxattr("b", "user.x", "y")
	var buf bytes.Buffer
	up := Upper{Dir: diffOpen(t, s.upper), Parent: diffOpen(t, s.parent), Xattrs: overlayutil.User}
	_, err := Diff(t.Context(), &buf, up, DiffOptions{})
	diffMust(t, err)
	if got := strings.Join(diffEntries(t, buf.Bytes()), "|"); got != "0 .wh.a|0 b|5 d/|5 d/sub/|0 d/sub/.wh..wh..opq" {
		t.Error(got)
	}
	diffSame(t, "applied", diffTree(t, s.merged), diffTree(t, s.applied(buf.Bytes())), exact)
}

func TestDiffIsDeterministic(t *testing.T) {
	s := newDiffStack(t, diffMeta, diffBase(t))
	f := diffFS{t, s.merged}
	for _, name := range []string{"q", "Z", "ä", "e/0", "d/sub/-"} {
		f.write(name, name)
		for _, x := range []string{"user.b", "user.a", "user.c"} {
			f.setxattr(name, x, name)
		}
	}
	f.rename("d", "m")
	first, res, err := s.diff(DiffOptions{})
	diffMust(t, err)
	if want := digest.FromBytes(first); res.DiffID != want {
		t.Fatalf("diffID %s of a tar that is %s", res.DiffID, want)
	}
	for range 5 {
		if again := s.mustDiff(); !bytes.Equal(first, again) {
			t.Fatal("the same directory gave another tar")
		}
	}
}

func TestDiffSourceDateEpoch(t *testing.T) {
	s := newDiffStack(t, nil, diffBase(t))
	f := diffFS{t, s.merged}
	f.remove("b")
	f.write("new", "")
	f.write("old", "")
	f.mtime("old", 1_300_000_000, 5)
	epoch := time.Unix(1_450_000_000, 999)
	layer, _, err := s.diff(DiffOptions{SourceDateEpoch: &epoch})
	diffMust(t, err)
	want := map[string]time.Time{".wh.b": time.Unix(0, 0), "new": time.Unix(1_450_000_000, 0), "old": time.Unix(1_300_000_000, 5)}
	for _, h := range diffHeaders(t, layer) {
		if !h.ModTime.Equal(want[h.Name]) {
			t.Errorf("%s has the time %v, not %v", h.Name, h.ModTime, want[h.Name])
		}
	}
}

func diffHeaders(t *testing.T, layer []byte) (headers []*tar.Header) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(layer))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return headers
		}
		diffMust(t, err)
		headers = append(headers, h)
	}
}

// An attribute that no layer can carry is left out with a word, once.
func TestDiffWarns(t *testing.T) {
	testutil.RequireRoot(t)
	f := diffFS{t, t.TempDir()}
	for _, name := range []string{"a", "b"} {
		f.write(name, "")
		f.setxattr(name, "user.x=y", "1")
		f.setxattr(name, "user.overlay.opaque", "y")
		f.setxattr(name, "user.kept", "1")
	}
	var warnings []string
	layer, _, err := diffDirs(t, f.root, "", DiffOptions{Warn: func(text string) { warnings = append(warnings, text) }})
	diffMust(t, err)
	if len(warnings) != 2 {
		t.Errorf("warnings: %q", warnings)
	}
	for _, h := range diffHeaders(t, layer) {
		if len(h.PAXRecords) < 1 || h.PAXRecords["SCHILY.xattr.user.kept"] != "1" || h.PAXRecords["SCHILY.xattr.user.overlay.opaque"] != "" {
			t.Errorf("%s: %q", h.Name, h.PAXRecords)
		}
	}
}

// Holes come out as zeros, wherever they are.
func TestDiffSparse(t *testing.T) {
	testutil.RequireRoot(t)
	f := diffFS{t, t.TempDir()}
	const size = 40 << 20
	want := make([]byte, size)
	file, err := os.Create(f.at("sparse"))
	diffMust(t, err)
	for _, at := range []int64{0, 3 << 20, 17<<20 + 5} {
		copy(want[at:], "data")
		_, err := file.WriteAt([]byte("data"), at)
		diffMust(t, err)
	}
	diffMust(t, file.Truncate(size))
	diffMust(t, file.Close())
	f.write("hole", "")
	diffMust(t, os.Truncate(f.at("hole"), 1<<20))
	layer, _, err := diffDirs(t, f.root, "", DiffOptions{})
	diffMust(t, err)
	contents := diffContents(t, layer)
	if !bytes.Equal(contents["sparse"], want) || !bytes.Equal(contents["hole"], make([]byte, 1<<20)) {
		t.Fatal("the content is another one")
	}
}

func diffContents(t *testing.T, layer []byte) map[string][]byte {
	t.Helper()
	contents := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(layer))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return contents
		}
		diffMust(t, err)
		contents[h.Name], err = io.ReadAll(tr)
		diffMust(t, err)
	}
}

func TestDiffCanceled(t *testing.T) {
	testutil.RequireRoot(t)
	f := diffFS{t, t.TempDir()}
	f.write("a", strings.Repeat("x", 4<<20))
	ctx, cancel := context.WithCancel(t.Context())
	w := diffHook{Writer: io.Discard, do: cancel}
	if _, err := Diff(ctx, &w, Upper{Dir: diffOpen(t, f.root)}, DiffOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestDiffReportsTheWriter(t *testing.T) {
	testutil.RequireRoot(t)
	f := diffFS{t, t.TempDir()}
	f.write("a", strings.Repeat("x", 1<<20))
	r, w := io.Pipe()
	diffMust(t, r.CloseWithError(io.ErrNoProgress))
	if _, err := Diff(t.Context(), w, Upper{Dir: diffOpen(t, f.root)}, DiffOptions{}); !errors.Is(err, io.ErrNoProgress) {
		t.Fatal(err)
	}
}

// The caller's descriptors are used for opening only: their offset stays.
func TestDiffTwiceFromOneDescriptor(t *testing.T) {
	testutil.RequireRoot(t)
	f := diffFS{t, t.TempDir()}
	f.write("a", "a")
	up := Upper{Dir: diffOpen(t, f.root)}
	var results []DiffResult
	for range 2 {
		res, err := Diff(t.Context(), io.Discard, up, DiffOptions{})
		diffMust(t, err)
		results = append(results, res)
	}
	if results[0] != results[1] || results[0].Entries != 1 {
		t.Fatal(results)
	}
	if names, err := up.Dir.Readdirnames(-1); err != nil || !slices.Equal(names, []string{"a"}) {
		t.Fatal(names, err)
	}
}
