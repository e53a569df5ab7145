// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestParseOCIName(t *testing.T) {
	for _, tc := range []struct {
		base   string
		kind   EntryKind
		target string
	}{
		{"file", Plain, ""},
		{".wh", Plain, ""},
		{"a.wh.b", Plain, ""},
		{"...", Plain, ""},
		{".WH.x", Plain, ""},
		{".wh.x", Whiteout, "x"},
		{".wh.....", Whiteout, "...."},
		{".wh..x", Whiteout, ".x"},
		{".wh.x.wh.y", Whiteout, "x.wh.y"},
		{".wh. ", Whiteout, " "},
		{".wh..wh", Whiteout, ".wh"},
		{".wh..wh..opq", Opaque, ""},
		{".wh..wh.", Reserved, ""},
		{".wh..wh.aufs", Reserved, ""},
		{".wh..wh.plnk", Reserved, ""},
		{".wh..wh..opq2", Reserved, ""},
	} {
		kind, target, err := ParseOCIName(tc.base)
		if err != nil || kind != tc.kind || target != tc.target {
			t.Errorf("%q: %v %q %v", tc.base, kind, target, err)
		}
	}
	for _, base := range []string{"", ".", "..", "/", "a/b", "a\x00", ".wh.", ".wh..", ".wh...", ".wh./", ".wh.a/b", ".wh..wh..opq/", ".wh.\x00"} {
		if _, _, err := ParseOCIName(base); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", base, err)
		}
	}
}

func TestMakeWhiteout(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	fd := openDir(t, dir)
	for range 2 { // twice is no error
		if err := MakeWhiteout(fd, "gone"); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir+"/gone", &st); err != nil || !IsWhiteout(&st) {
		t.Fatalf("%+v %v", st, err)
	}
	write(t, dir+"/file")
	if err := MakeWhiteout(fd, "file"); !errdefs.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	if err := unix.Mknod(dir+"/null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	if err := unix.Lstat(dir+"/null", &st); err != nil || IsWhiteout(&st) {
		t.Fatalf("the null device is taken for a whiteout: %v", err)
	}
	if err := MakeWhiteout(fd, "null"); !errdefs.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "a/b", "../x"} {
		if err := MakeWhiteout(fd, name); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", name, err)
		}
		if err := Trusted.MakeXattrWhiteout(fd, name); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := Trusted.MakeXattrWhiteout(fd, "file"); !errdefs.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}
