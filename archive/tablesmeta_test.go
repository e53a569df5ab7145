// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// capability is a security.capability of version 2 with CAP_NET_RAW.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func TestTableMetadata(t *testing.T) {
	runTable(t, []tableCase{
		{
			name: "modes and owners", layers: layers{{
				file("s", "s").Perm(0o4755).Owner(5, 6), file("g", "g").Perm(0o2755).Owner(5, 6), dir("t").Perm(0o1777),
				file("none", "").Perm(0), file("high", "").Owner(1<<31, 1<<32-2),
			}},
			want: map[string]string{
				"/s": `file["s"] 4755 5:6...`, "/g": `file["g"] 2755 5:6...`, "/t": "dir 1777 0:0...",
				"/none": `file[""] 0000 0:0...`, "/high": `file[""] 0644 2147483648:4294967294...`,
			},
		},
		{
			name: "times", layers: layers{{
				dir("d").At(1, 5), file("d/f", "f").At(1_234_567_890, 123_456_789), symlink("d/l", "f").At(7, 8), file("before", "").At(-1, 0),
			}},
			want: map[string]string{
				"/d": "dir 0755 0:0 mtime=1.000000005", "/d/f": `file["f"] 0644 0:0 mtime=1234567890.123456789`,
				"/d/l": "symlink->f 0777 0:0 mtime=7.000000008", "/before": `file[""] 0644 0:0 mtime=-1`,
			},
		},
		{
			name: "a directory keeps its time", layers: layers{{dir("d").At(77, 0)}, {file("d/new", "n")}, {whiteout("d/new")}},
			want:    map[string]string{"/d": "dir 0755 0:0 mtime=77"},
			differs: "rule 1: what overlay merges has the time of the layer that named it; containerd sets the time of extracting",
		},
		{
			name: "a directory without an entry", layers: layers{
				{dir("d").Perm(0o2750).Owner(5, 6).Xattr("user.k", "v")}, {file("d/f", "f")}, {file("d/n/f", "f")},
			},
			want: map[string]string{
				"/d": `dir 2750 5:6 mtime=1000000000 x{user.k="v"}`, "/d/f": `file["f"] 0644 0:0...`, "/d/n": "dir 0755 0:0 mtime=NOW",
			},
			differs: "rule 1: containerd lets a set-group-id directory hand down its group",
		},
		{
			name: "an entry replaces a directory's attributes", layers: layers{{dir("d").Xattr("user.a", "1")}, {dir("d").Xattr("user.b", "2")}},
			want:    map[string]string{"/d": `dir 0755 0:0 mtime=1000000000 x{user.b="2"}`},
			differs: "rule 10: on one directory containerd adds to them; with overlay it cannot",
		},
		{
			name: "attributes", layers: layers{{
				file("f", "").Xattr("user.key", "value").Xattr("user.empty", "").Xattr("user.nul", "a\x00b"), dir("d").Xattr("user.key", "value"),
			}},
			want: map[string]string{
				"/f": `file[""] 0644 0:0 mtime=1000000000 x{user.empty="",user.key="value",user.nul="a\x00b"}`,
				"/d": `dir 0755 0:0 mtime=1000000000 x{user.key="value"}`,
			},
		},
		{
			name: "an attribute of the label", layers: layers{{file("f", "").Xattr("security.selinux", "unconfined_u:object_r:default_t:s0\x00")}},
			want: map[string]string{"/f": `file[""] 0644 0:0 mtime=1000000000...`},
		},
		{
			name: "attributes that a link can't have", layers: layers{{symlink("l", "x").Xattr("user.key", "value"), layertest.Fifo("p").Xattr("user.key", "v")}},
			want: map[string]string{"/l": "symlink->x 0777 0:0 mtime=1000000000", "/p": "fifo 0600 0:0 mtime=1000000000"},
		},
		{
			name: "capabilities outlive the owner", layers: layers{{file("f", "f").Perm(0o755).Owner(5, 5).Xattr("security.capability", capability)}},
			want: map[string]string{"/f": `file["f"] 0755 5:5 mtime=1000000000 x{security.capability=...`},
		},
		{
			name: "attributes that are not a layer's to set", layers: layers{{dir("d"), file("d/a", "a")}, {
				dir("d").Xattr("trusted.overlay.opaque", "y"), file("d/b", "b").Xattr("trusted.overlay.metacopy", ""), file("c", "").Xattr("trusted.k", "v"),
			}},
			want: map[string]string{
				"/d/a": `file["a"]...`, "/d/b": `file["b"] 0644 0:0 mtime=1000000000`, "/c": `file[""] 0644 0:0 mtime=1000000000`,
			},
			differs: "rule 14: containerd sets them, and the directory is opaque",
		},
		{
			name: "an ACL is not handed down", layers: layers{{dir("d").Xattr("system.posix_acl_default", acl)}, {
				file("d/f", "f").Perm(0o666), dir("d/s").Perm(0o777), layertest.Fifo("d/p").Perm(0o666),
			}},
			want: map[string]string{
				"/d/f": `file["f"] 0666 0:0 mtime=1000000000`, "/d/s": "dir 0777 0:0 mtime=1000000000", "/d/p": "fifo 0666 0:0 mtime=1000000000",
			},
			differs: "rule 1: a layer says all that there is to say of its files",
		},
	})
}

// acl is rwx for the owner, r-x for the rest.
const acl = "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x04\x00\x05\x00\xff\xff\xff\xff\x20\x00\x05\x00\xff\xff\xff\xff"

func TestTableDevices(t *testing.T) {
	node := func(kind string, major, minor int64) layers {
		return layers{{layertest.Device(kind, "n", major, minor).Perm(0o660).Owner(5, 6)}}
	}
	const char, block = layertest.TypeChar, layertest.TypeBlock
	runTable(t, []tableCase{
		{name: "char", layers: node(char, 1, 3), want: map[string]string{"/n": "char 1:3 0660 5:6 mtime=1000000000"}},
		{name: "block", layers: node(block, 8, 0), want: map[string]string{"/n": "block 8:0 0660 5:6 mtime=1000000000"}},
		{name: "block 0:0", layers: node(block, 0, 0), want: map[string]string{"/n": "block 0:0 0660 5:6 mtime=1000000000"}},
		{name: "char 0:1", layers: node(char, 0, 1), want: map[string]string{"/n": "char 0:1 0660 5:6 mtime=1000000000"}},
		{name: "the largest", layers: node(char, 1<<12-1, 1<<20-1), want: map[string]string{"/n": "char 4095:1048575 0660 5:6 mtime=1000000000"}},
		{
			name: "fifo", layers: layers{{layertest.Fifo("p").Perm(0o622).Owner(5, 6)}},
			want: map[string]string{"/p": "fifo 0622 5:6 mtime=1000000000"},
		},
		{name: "major over 32 bits", layers: node(block, 1<<32+1, 0), refused: true},
		{name: "minor over 32 bits", layers: node(block, 0, 1<<32+1), refused: true},
		{name: "negative major", layers: node(block, -1, 0), refused: true},
		{name: "negative minor", layers: node(block, 0, -1), refused: true},
		{name: "major over 12 bits", layers: node(block, 1<<12, 0), refused: true, differs: "the kernel's device numbers end there; containerd's would become another device"},
		{name: "minor over 20 bits", layers: node(block, 0, 1<<20), refused: true, differs: "as above"},
		{name: "char 0:0", layers: node(char, 0, 0), refused: true, differs: "rule 14: it would be a whiteout; containerd makes it"},
		{name: "uid -1", layers: layers{{file("f", "").Owner(-1, 0)}}, refused: true, differs: "containerd leaves the file root's"},
		{name: "uid 2^32-1", layers: layers{{file("f", "").Owner(1<<32-1, 0)}}, refused: true, differs: "containerd leaves the file root's"},
		{name: "gid 2^32", layers: layers{{file("f", "").Owner(0, 1<<32)}}, refused: true, differs: "containerd makes it 0"},
	})
}

// TestFullDisk: a disk that is full is no fault of the layer's.
func TestFullDisk(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	blob, err := layertest.Layer{file("big", strings.Repeat("x", 1<<20))}.Tar()
	must(t, err)
	err = withDir(dir, func(root *os.File) error {
		_, err := archive.Apply(context.Background(), source(blob), root, archive.Options{})
		return err
	})
	if !errdefs.IsResourceExhausted(err) {
		t.Fatalf("not ErrResourceExhausted: %v", err)
	}
}

// TestInheritedMetadata extracts below a directory that hands down its group and
// an ACL, as /var/lib may: nothing of it may get into the layer.
func TestInheritedMetadata(t *testing.T) {
	h := kernelHouse(t)
	must(t, os.Chown(h.base, 0, 50))
	must(t, unix.Chmod(h.base, 0o2755))
	must(t, unix.Setxattr(h.base, "system.posix_acl_default", []byte(acl), 0))
	blob, err := layertest.Layer{
		dir("d"), file("d/f", "f").Perm(0o666), layertest.Fifo("p").Perm(0o666), file("i/f", "f").Perm(0o777), symlink("l", "f"),
	}.Tar()
	must(t, err)
	x, err := h.extract(blob)
	must(t, err)
	got, err := layertest.Dump(x.dir)
	must(t, err)
	want := layertest.Tree{
		"/": got["/"], "/d": "dir 0755 0:0 mtime=1000000000", "/d/f": `file["f"] 0666 0:0 mtime=1000000000`,
		"/p": "fifo 0666 0:0 mtime=1000000000", "/i": "dir 0755 0:0 mtime=NOW", "/i/f": `file["f"] 0777 0:0 mtime=1000000000`,
		"/l": "symlink->f 0777 0:0 mtime=1000000000",
	}
	if diffs := want.Diff(got); len(diffs) > 0 {
		t.Errorf("handed down:\n%s", strings.Join(diffs, "\n"))
	}
}

// TestSparse: holes stay holes, and the data between them is right.
func TestSparse(t *testing.T) {
	h := kernelHouse(t)
	files, err := readTarGz("testdata/hostile/layers.tar.gz")
	must(t, err)
	x, err := h.extract(files["sparse-1.0.tar"])
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(x.dir, "sp"), &st))
	data, err := os.ReadFile(filepath.Join(x.dir, "sp"))
	must(t, err)
	if want := strings.Repeat("\x00", 1<<20) + "hello"; string(data) != want {
		t.Errorf("%d bytes that are not what was put there", len(data))
	}
	if st.Blocks*512 > 64<<10 {
		t.Errorf("%d bytes on disk", st.Blocks*512)
	}
}
