// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	ctdarchive "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"golang.org/x/sys/unix"
)

// diffStack is a base directory, an overlay over it for a container to write to,
// and a read-only one that shows the parent.
type diffStack struct {
	t                           testing.TB
	dir                         string
	base, upper, merged, parent string
}

// newDiffStack fills the base with base and mounts both overlays.
func newDiffStack(t testing.TB, options []string, base func(root string)) *diffStack {
	t.Helper()
	testutil.RequireRoot(t)
	s := newBareStack(t)
	base(s.base)
	s.mount(options)
	return s
}

func newBareStack(t testing.TB) *diffStack {
	t.Helper()
	dir := t.TempDir()
	testutil.CheckNoMounts(t, dir)
	s := &diffStack{t: t, dir: dir}
	for name, field := range map[string]*string{"base": &s.base, "upper": &s.upper, "merged": &s.merged, "parent": &s.parent} {
		*field = filepath.Join(dir, name)
		diffMust(t, os.Mkdir(*field, 0o755))
	}
	diffMust(t, os.Mkdir(filepath.Join(dir, "work"), 0o755))
	diffMust(t, os.Mkdir(filepath.Join(dir, "empty"), 0o755))
	return s
}

func (s *diffStack) mount(options []string) {
	s.t.Helper()
	lower := "lowerdir=" + s.base
	view := mount.Mount{Type: "overlay", Source: "overlay", Options: append(slices.Clone(options), lower+":"+filepath.Join(s.dir, "empty"))}
	testutil.MountAll(s.t, []mount.Mount{view}, s.parent)
	testutil.MountAll(s.t, []mount.Mount{s.writable(options)}, s.merged)
}

func (s *diffStack) writable(options []string) mount.Mount {
	own := []string{"lowerdir=" + s.base, "upperdir=" + s.upper, "workdir=" + filepath.Join(s.dir, "work")}
	return mount.Mount{Type: "overlay", Source: "overlay", Options: append(slices.Clone(options), own...)}
}

// diff runs Diff over the stack's directories.
func (s *diffStack) diff(opts DiffOptions) ([]byte, DiffResult, error) {
	s.t.Helper()
	return diffDirs(s.t, s.upper, s.parent, opts)
}

func diffDirs(t testing.TB, upper, parent string, opts DiffOptions) ([]byte, DiffResult, error) {
	t.Helper()
	up := Upper{Dir: diffOpen(t, upper)}
	if parent != "" {
		up.Parent = diffOpen(t, parent)
	}
	var buf bytes.Buffer
	res, err := Diff(t.Context(), &buf, up, opts)
	return buf.Bytes(), res, err
}

func (s *diffStack) mustDiff() []byte {
	s.t.Helper()
	layer, res, err := s.diff(DiffOptions{})
	diffMust(s.t, err)
	if res.Size != int64(len(layer)) || res.Entries != int64(len(diffEntries(s.t, layer))) {
		s.t.Fatalf("the result says %d bytes, %d entries; the tar has %d, %d", res.Size, res.Entries, len(layer), len(diffEntries(s.t, layer)))
	}
	return layer
}

// walked is what containerd's walking differ makes of the mounts.
func (s *diffStack) walked() []byte {
	s.t.Helper()
	var buf bytes.Buffer
	diffMust(s.t, ctdarchive.WriteDiff(s.t.Context(), &buf, s.parent, s.merged))
	return buf.Bytes()
}

// applied is the parent as a plain directory with a layer applied by containerd.
func (s *diffStack) applied(layer []byte) string {
	s.t.Helper()
	root, err := os.MkdirTemp(s.dir, "flat")
	diffMust(s.t, err)
	if out, err := exec.Command("cp", "-a", s.parent+"/.", root).CombinedOutput(); err != nil {
		s.t.Fatalf("copy the parent: %v: %s", err, out)
	}
	if _, err := ctdarchive.Apply(s.t.Context(), root, bytes.NewReader(layer)); err != nil {
		s.t.Fatalf("apply: %v\n%s", err, strings.Join(diffEntries(s.t, layer), "\n"))
	}
	return root
}

// diffTree describes every file below a directory in one line. The root's own
// metadata are not part of a layer.
func diffTree(t testing.TB, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	inodes := map[uint64]string{}
	diffMust(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		line, err := diffLine(path, rel, inodes)
		if line != "" {
			tree[rel] = line
		}
		return err
	}))
	return tree
}

func diffLine(path, rel string, inodes map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	line := fmt.Sprintf("%o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" %d %.80q", len(data), data)
	case unix.S_IFLNK:
		target, _ := os.Readlink(path)
		line += " -> " + target
	case unix.S_IFCHR, unix.S_IFBLK:
		line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFSOCK:
		return "", nil
	}
	if st.Nlink > 1 && st.Mode&unix.S_IFMT == unix.S_IFREG {
		if first := inodes[st.Ino]; first != "" {
			line += " same as " + first
		} else {
			inodes[st.Ino] = rel
		}
	}
	return line + fmt.Sprintf(" %q", diffXattrsOf(path)), nil
}

// diffXattrsOf leaves out what belongs to the host.
func diffXattrsOf(path string) map[string]string {
	xattrs := map[string]string{}
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return xattrs
	}
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if name == "" || strings.HasPrefix(name, "trusted.") || name == "security.selinux" || err != nil {
			continue
		}
		xattrs[name] = string(value[:n])
	}
	return xattrs
}

// diffSame compares two trees; drop removes what is not to count from a line.
func diffSame(t testing.TB, what string, want, got map[string]string, drop func(line string) string) {
	t.Helper()
	paths := maps.Clone(want)
	maps.Copy(paths, got)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if w, g := drop(want[path]), drop(got[path]); w != g {
			t.Errorf("%s: %q\n  want %s\n  got  %s", what, path, w, g)
		}
	}
}

func exact(line string) string { return line }

// asContainerd cuts a line down to what containerd's differ keeps: whole seconds,
// and no time at all of directories, which it does not look at; of the attributes
// only capabilities. Nor does it see that a hard link is broken if nothing else is
// different.
func asContainerd(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return line
	}
	fields[2], _, _ = strings.Cut(fields[2], ".")
	if strings.HasPrefix(fields[0], "4") { // S_IFDIR
		fields[2] = ""
	}
	line, xattrs, _ := strings.Cut(strings.Join(fields, " "), "map[")
	line, _, _ = strings.Cut(line, " same as ")
	line = strings.TrimRight(line, " ")
	if strings.Contains(xattrs, "security.capability") {
		line += " capability"
	}
	return line
}

// checkRoundTrip applies the stack's diff and containerd's and compares both with
// what the container sees. It returns the entries of the diff.
func (s *diffStack) checkRoundTrip() []string {
	s.t.Helper()
	layer := s.mustDiff()
	want := diffTree(s.t, s.merged)
	flat := s.applied(layer)
	diffSame(s.t, "applied", want, diffTree(s.t, flat), exact)
	theirs := s.applied(s.walked())
	diffSame(s.t, "containerd's", diffTree(s.t, theirs), diffTree(s.t, flat), asContainerd)
	diffMust(s.t, errors.Join(os.RemoveAll(flat), os.RemoveAll(theirs)))
	if s.t.Failed() {
		s.t.Logf("layer:\n%s", strings.Join(diffEntries(s.t, layer), "\n"))
	}
	return diffEntries(s.t, layer)
}

// diffEntries lists a tar: type, name and link target.
func diffEntries(t testing.TB, layer []byte) (lines []string) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(layer))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		diffMust(t, err)
		line := string(h.Typeflag) + " " + h.Name
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		lines = append(lines, line)
	}
}

func diffOpen(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	diffMust(t, err)
	t.Cleanup(func() { diffMust(t, f.Close()) })
	return f
}

func diffMust(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
