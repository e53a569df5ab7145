// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// diffFS makes changes below a directory. A failing call fails the test.
type diffFS struct {
	t    testing.TB
	root string
}

func (f diffFS) at(path string) string { return filepath.Join(f.root, path) }

func (f diffFS) write(path, data string) {
	diffMust(f.t, os.WriteFile(f.at(path), []byte(data), 0o644))
}
func (f diffFS) mkdir(path string)      { diffMust(f.t, os.MkdirAll(f.at(path), 0o755)) }
func (f diffFS) remove(path string)     { diffMust(f.t, os.RemoveAll(f.at(path))) }
func (f diffFS) rename(from, to string) { diffMust(f.t, unix.Rename(f.at(from), f.at(to))) }
func (f diffFS) link(from, to string)   { diffMust(f.t, os.Link(f.at(from), f.at(to))) }
func (f diffFS) symlink(target, path string) {
	diffMust(f.t, os.Symlink(target, f.at(path)))
}
func (f diffFS) chmod(path string, mode uint32) { diffMust(f.t, unix.Chmod(f.at(path), mode)) }
func (f diffFS) chown(path string, id int)      { diffMust(f.t, os.Lchown(f.at(path), id, id+1)) }
func (f diffFS) mknod(path string, mode uint32, major, minor uint32) {
	diffMust(f.t, unix.Mknod(f.at(path), mode, int(unix.Mkdev(major, minor))))
}

func (f diffFS) setxattr(path, name, value string) {
	diffMust(f.t, unix.Lsetxattr(f.at(path), name, []byte(value), 0))
}

func (f diffFS) mtime(path string, sec, nsec int64) {
	ts := []unix.Timespec{{Sec: sec, Nsec: nsec}, {Sec: sec, Nsec: nsec}}
	diffMust(f.t, unix.UtimesNanoAt(unix.AT_FDCWD, f.at(path), ts, unix.AT_SYMLINK_NOFOLLOW))
}

// touchOpen opens a file for writing and writes nothing: overlay copies it up.
func (f diffFS) touchOpen(path string) {
	file, err := os.OpenFile(f.at(path), os.O_RDWR, 0)
	diffMust(f.t, err)
	diffMust(f.t, file.Close())
}

// diffCap is a file capability, cap_net_raw+ep, as the kernel keeps it (version 2).
const diffCap = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// diffACL is a POSIX ACL: owner rwx, uid 1000 rwx, group r-x, mask rwx, others r-x.
var diffACL = "\x02\x00\x00\x00" + aclEntry(1, 7, -1) + aclEntry(2, 7, 1000) + aclEntry(4, 5, -1) + aclEntry(16, 7, -1) + aclEntry(32, 5, -1)

func aclEntry(tag, perm byte, id int32) string {
	u := uint32(id)
	return string([]byte{tag, 0, perm, 0, byte(u), byte(u >> 8), byte(u >> 16), byte(u >> 24)})
}

// diffBase is a small tree with something of everything.
func diffBase(t testing.TB) func(root string) {
	return func(root string) {
		f := diffFS{t, root}
		for _, dir := range []string{"d/sub/deep", "e/inner", "keep/me", "z"} {
			f.mkdir(dir)
		}
		for _, file := range []string{"a", "b", "d/one", "d/two", "d/sub/three", "d/sub/deep/four", "e/five", "e/inner/six", "keep/me/seven", "z/eight"} {
			f.write(file, "content of "+file)
		}
		f.write("cap", "x")
		f.setxattr("cap", "security.capability", diffCap)
		f.setxattr("d", "user.of", "d")
		f.chown("b", 1000)
		f.write("l1", "linked")
		f.link("l1", "l2")
		f.symlink("d", "s")
		f.mknod("fifo", unix.S_IFIFO|0o640, 0, 0)
		f.mknod("null", unix.S_IFCHR|0o666, 1, 3)
		f.chmod("e/five", 0o4755)
		diffMust(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
			rel, _ := filepath.Rel(root, path)
			f.mtime(rel, 1_400_000_000+int64(len(path)), 0)
			return err
		}))
	}
}

// diffCases are changes that a container makes, and what the layer must have for
// them ("" entries: nothing at all; nil: only the round trip counts).
var diffCases = []struct {
	name    string
	options []string
	change  func(f diffFS)
	want    []string
}{
	{"nothing", nil, func(diffFS) {}, []string{}},
	{"create", nil, func(f diffFS) { f.write("d/new", "n") }, []string{"5 d/", "0 d/new"}},
	{"create deep", nil, func(f diffFS) { f.write("d/sub/deep/new", "n") }, []string{"5 d/", "5 d/sub/", "5 d/sub/deep/", "0 d/sub/deep/new"}},
	{"modify", nil, func(f diffFS) { f.write("a", "other") }, []string{"0 a"}},
	{"parent unchanged", nil, func(f diffFS) { f.write("d/one", "other") }, []string{"5 d/", "0 d/one"}},
	{"open only", nil, func(f diffFS) { f.touchOpen("d/one") }, []string{}},
	{"content behind an equal stat", nil, func(f diffFS) {
		st, err := os.Stat(f.at("a"))
		diffMust(f.t, err)
		f.write("a", "CONTENT of a")
		f.mtime("a", st.ModTime().Unix(), 0)
	}, []string{"0 a"}},
	{"made again the same", nil, func(f diffFS) {
		st, err := os.Stat(f.at("a"))
		diffMust(f.t, err)
		f.remove("a")
		f.write("a", "content of a")
		f.mtime("a", st.ModTime().Unix(), 0)
	}, []string{}},
	{"chmod", nil, func(f diffFS) { f.chmod("a", 0o600) }, []string{"0 a"}},
	{"chmod and back", nil, func(f diffFS) { f.chmod("d/one", 0o600); f.chmod("d/one", 0o644) }, []string{}},
	{"setuid", nil, func(f diffFS) { f.chmod("d/one", 0o6755); f.chmod("d", 0o3755) }, []string{"5 d/", "0 d/one"}},
	{"chown", nil, func(f diffFS) { f.chown("d", 4_000_000_000); f.chown("s", 7) }, []string{"5 d/", "2 s -> d"}},
	{"touch a directory", nil, func(f diffFS) { f.mtime("d/sub", 5, 6) }, []string{"5 d/", "5 d/sub/"}},
	{"time with nanoseconds", nil, func(f diffFS) { f.mtime("a", 1_500_000_000, 123456789) }, []string{"0 a"}},
	{"xattr", nil, func(f diffFS) { f.setxattr("a", "user.x", "1\x002"); f.setxattr("d/sub", "user.empty", "") }, []string{"0 a", "5 d/", "5 d/sub/"}},
	{"capability", nil, func(f diffFS) { f.setxattr("d/one", "security.capability", diffCap) }, []string{"5 d/", "0 d/one"}},
	{"capability kept", nil, func(f diffFS) { f.chmod("cap", 0o755) }, []string{"0 cap"}},
	{"capability lost", nil, func(f diffFS) { f.write("cap", "y") }, []string{"0 cap"}},
	{"acl", nil, func(f diffFS) {
		f.setxattr("a", "system.posix_acl_access", diffACL)
		f.setxattr("fifo", "system.posix_acl_access", diffACL)
		f.mkdir("acl")
		f.setxattr("acl", "system.posix_acl_default", diffACL)
	}, []string{"0 a", "5 acl/", "6 fifo"}},
	{"labels of the host", nil, func(f diffFS) { f.setxattr("a", "trusted.mine", "1"); f.touchOpen("a") }, []string{}},
	{"delete", nil, func(f diffFS) { f.remove("d/one"); f.remove("z") }, []string{"5 d/", "0 d/.wh.one", "0 .wh.z"}},
	{"delete and make again", nil, func(f diffFS) { f.remove("a"); f.write("a", "new") }, []string{"0 a"}},
	{"make and delete", nil, func(f diffFS) { f.write("d/tmp", ""); f.remove("d/tmp"); f.restore("d") }, []string{}},
	{"opaque", nil, func(f diffFS) { f.remove("e"); f.mkdir("e/inner"); f.write("e/five", "new") },
		[]string{"5 e/", "0 e/.wh..wh..opq", "0 e/five", "5 e/inner/"}},
	{"opaque with an attribute lost", nil, func(f diffFS) { f.remove("d"); f.mkdir("d"); f.write("d/two", "new") },
		[]string{"0 .wh.d", "5 d/", "0 d/.wh..wh..opq", "0 d/two"}},
	{"opaque as it was", nil, func(f diffFS) {
		f.remove("d/sub")
		f.mkdir("d/sub/deep")
		f.write("d/sub/three", "content of d/sub/three")
	}, nil},
	{"file to directory", nil, func(f diffFS) { f.remove("a"); f.mkdir("a"); f.write("a/x", "") }, []string{"5 a/", "0 a/x"}},
	{"directory to file", nil, func(f diffFS) { f.remove("d"); f.write("d", "") }, []string{"0 d"}},
	{"directory to link", nil, func(f diffFS) { f.remove("d"); f.symlink("e", "d") }, []string{"2 d -> e"}},
	{"link to directory", nil, func(f diffFS) { f.remove("s"); f.mkdir("s/t") }, []string{"5 s/", "5 s/t/"}},
	{"link to another", nil, func(f diffFS) { f.remove("s"); f.symlink("e", "s") }, []string{"2 s -> e"}},
	{"file to device", nil, func(f diffFS) { f.remove("a"); f.mknod("a", unix.S_IFBLK|0o600, 259, 70000) }, []string{"4 a"}},
	{"devices and fifos", nil, func(f diffFS) {
		f.mknod("c", unix.S_IFCHR|0o620, 5, 1)
		f.mknod("p", unix.S_IFIFO|0o600, 0, 0)
		f.chmod("null", 0o600)
	}, []string{"3 c", "3 null", "6 p"}},
	{"new hard links", nil, func(f diffFS) { f.write("h2", "h"); f.link("h2", "d/h1"); f.link("h2", "z/h3") },
		[]string{"5 d/", "0 d/h1", "1 h2 -> d/h1", "5 z/", "1 z/h3 -> d/h1"}},
	{"link to a file of the parent", nil, func(f diffFS) { f.link("z/eight", "d/link") }, []string{"5 d/", "0 d/link", "5 z/", "1 z/eight -> d/link"}},
	{"linked symlinks", nil, func(f diffFS) { f.symlink("x", "y1"); f.link("y1", "y2") }, []string{"2 y1 -> x", "1 y2 -> y1"}},
	{"links broken by nothing", nil, func(f diffFS) { f.touchOpen("l1") }, []string{"0 l1"}},
	{"links broken", nil, func(f diffFS) { f.chmod("l1", 0o600) }, []string{"0 l1"}},
	{"socket", nil, func(f diffFS) { f.mknod("sock", unix.S_IFSOCK|0o600, 0, 0) }, []string{}},
	{"rename", nil, func(f diffFS) { f.rename("a", "d/a"); f.rename("d/one", "d/1") }, []string{"0 .wh.a", "5 d/", "0 d/1", "0 d/a", "0 d/.wh.one"}},
	{"long names", nil, func(f diffFS) {
		long := strings.Repeat("n", 200)
		f.mkdir("d/" + long)
		f.write("d/"+long+"/"+long, "")
		f.symlink(strings.Repeat("t/", 300), "d/"+long+"/l")
		f.write("not utf8 \xff\xfe", "")
		f.write("späte\nZeile", "")
	}, nil},
	{"move a directory", diffMoves, func(f diffFS) { f.rename("d", "moved") },
		[]string{"0 .wh.d", "5 moved/", "0 moved/one", "5 moved/sub/", "5 moved/sub/deep/", "0 moved/sub/deep/four", "0 moved/sub/three", "0 moved/two"}},
	{"move and change", diffMoves, func(f diffFS) {
		f.rename("d", "keep/d")
		f.write("keep/d/one", "changed")
		f.remove("keep/d/two")
		f.write("keep/d/sub/new", "new")
		f.remove("keep/d/sub/deep")
		f.mkdir("keep/d/sub/deep")
	}, nil},
	{"move inside what was moved", diffMoves, func(f diffFS) {
		f.rename("d", "m")
		f.rename("m/sub", "m/bus")
		f.rename("m/bus/deep", "z/deep")
		f.write("m/bus/x", "")
	}, nil},
	{"move over a directory", diffMoves, func(f diffFS) { f.remove("e/inner"); f.remove("e/five"); f.rename("d", "e") }, nil},
	{"swap", diffMoves, func(f diffFS) { f.rename("d", "t"); f.rename("e", "d"); f.rename("t", "e") }, nil},
	{"move there and back", diffMoves, func(f diffFS) { f.rename("d/sub", "t"); f.rename("t", "d/sub") }, nil},
	{"move into something new", diffMoves, func(f diffFS) { f.mkdir("n/m"); f.rename("keep", "n/m/keep"); f.rename("d/sub", "n/sub") }, nil},
	{"links in what was moved", diffMoves, func(f diffFS) {
		f.link("d/one", "d/uno")
		f.rename("d", "m")
		f.link("m/two", "m/dos")
	}, nil},
	{"metacopy", diffMeta, func(f diffFS) { f.chmod("d/one", 0o600); f.chown("b", 3); f.chmod("cap", 0o700) },
		[]string{"0 b", "0 cap", "5 d/", "0 d/one"}},
	{"metacopy and back", diffMeta, func(f diffFS) { f.chmod("d/one", 0o600); f.chmod("d/one", 0o644) }, []string{}},
	{"metacopy moved", diffMeta, func(f diffFS) {
		f.chmod("d/one", 0o600)
		f.rename("d/one", "d/uno")
		f.chmod("a", 0o640)
		f.rename("a", "z/a")
		f.chmod("keep/me/seven", 0o600)
		f.rename("keep", "peek")
		f.rename("peek/me/seven", "peek/me/7")
		f.rename("d", "moved")
	}, nil},
	{"metacopy linked", diffMeta, func(f diffFS) { f.chmod("a", 0o600); f.link("a", "d/a2"); f.remove("a") }, nil},
	{"metacopy written to later", diffMeta, func(f diffFS) { f.chmod("a", 0o600); f.rename("a", "d/a"); f.write("d/a", "data") }, nil},
}

var (
	diffMoves = []string{"redirect_dir=on", "index=off"}
	diffMeta  = []string{"redirect_dir=on", "metacopy=on", "index=off"}
)

// restore gives a directory the time it has in the base, whose length of path is
// in it.
func (f diffFS) restore(path string) {
	base := filepath.Join(filepath.Dir(f.root), "base", path)
	st, err := os.Stat(base)
	diffMust(f.t, err)
	f.mtime(path, st.ModTime().Unix(), 0)
}

func TestDiffCases(t *testing.T) {
	for _, tc := range diffCases {
		t.Run(tc.name, func(t *testing.T) {
			s := newDiffStack(t, tc.options, diffBase(t))
			tc.change(diffFS{t, s.merged})
			got := s.checkRoundTrip()
			if tc.want != nil && strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("entries:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// A snapshot's lower directories were uppers once: moved directories and metacopy
// files in them are seen through the parent's mount.
func TestDiffOverMovedParents(t *testing.T) {
	s := newDiffStack(t, diffMeta, diffBase(t))
	f := diffFS{t, s.merged}
	f.rename("d", "m")
	f.chmod("a", 0o600)
	second := newBareStack(t)
	second.base = s.upper + ":" + s.base
	second.mount(diffMeta)
	g := diffFS{t, second.merged}
	g.rename("m", "n")
	g.chmod("a", 0o640)
	g.write("n/sub/new", strconv.Itoa(7))
	layer := second.mustDiff()
	diffSame(t, "applied", diffTree(t, second.merged), diffTree(t, second.applied(layer)), exact)
}

// A socket is not kept, as in containerd, but what it has replaced is gone, where
// containerd's differ would leave it.
func TestDiffSocket(t *testing.T) {
	s := newDiffStack(t, nil, diffBase(t))
	f := diffFS{t, s.merged}
	f.remove("a")
	f.mknod("a", unix.S_IFSOCK|0o600, 0, 0)
	layer := s.mustDiff()
	if got := strings.Join(diffEntries(t, layer), "|"); got != "0 .wh.a" {
		t.Error(got)
	}
	diffSame(t, "applied", diffTree(t, s.merged), diffTree(t, s.applied(layer)), exact)
}
