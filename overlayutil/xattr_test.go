// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestCodecOnTheKernel(t *testing.T) {
	testutil.RequireRoot(t)
	checkCodec(t, Trusted, nil)
}

func TestCodecOnTheKernelWithUserXattr(t *testing.T) {
	testutil.RequireRoot(t)
	checkCodec(t, User, []string{"userxattr"})
}

func TestCodecInUserNamespace(t *testing.T) {
	if testutil.InUserNS(t, 100000) {
		checkCodec(t, User, []string{"userxattr"})
	}
}

func TestCodecInUserNamespaceWithHostIDs(t *testing.T) {
	if testutil.InUserNS(t, 0) {
		checkCodec(t, User, []string{"userxattr"})
	}
}

// codecCase prepares the directory d of a layer over one that has d/gone and
// d/kept, and says what must be seen in d with and without the lower layer.
type codecCase struct {
	name    string
	prepare func(fd int, ns XattrNamespace) error
	merged  []string
	alone   []string
}

func codecCases() []codecCase {
	device := func(fd int, _ XattrNamespace) error { return MakeWhiteout(fd, "gone") }
	return []codecCase{
		{"whiteout without origin", device, []string{"kept"}, []string{"gone"}},
		{"whiteout with origin", func(fd int, ns XattrNamespace) error {
			return errors.Join(device(fd, ns), ns.MarkOrigin(fd))
		}, []string{"kept"}, []string{}},
		{"xattr whiteout without origin", func(fd int, ns XattrNamespace) error {
			return ns.MakeXattrWhiteout(fd, "gone")
		}, []string{"kept"}, []string{"gone"}},
		{"xattr whiteout with origin", func(fd int, ns XattrNamespace) error {
			return errors.Join(ns.MakeXattrWhiteout(fd, "gone"), ns.MarkOrigin(fd))
		}, []string{"kept"}, []string{}},
		{"opaque", func(fd int, ns XattrNamespace) error { return ns.SetOpaque(fd) }, []string{}, []string{}},
	}
}

func checkCodec(t *testing.T, ns XattrNamespace, options []string) {
	for _, tc := range codecCases() {
		t.Run(tc.name, func(t *testing.T) {
			base := t.TempDir()
			testutil.CheckNoMounts(t, base)
			top, bottom := mkdir(t, base+"/top"), mkdir(t, base+"/bottom")
			mkdir(t, bottom+"/d")
			write(t, bottom+"/d/gone")
			write(t, bottom+"/d/kept")
			if err := tc.prepare(openDir(t, mkdir(t, top+"/d")), ns); err != nil {
				t.Fatal(err)
			}
			for _, view := range []struct {
				lowers []string
				want   []string
			}{{[]string{top, bottom}, tc.merged}, {[]string{top}, tc.alone}} {
				plan := Plan{Lowers: view.lowers, Empty: mkdir(t, base+"/empty"), Options: options}
				target := t.TempDir()
				mounts, err := plan.Mounts()
				if err != nil {
					t.Fatal(err)
				}
				testutil.MountAll(t, mounts, target)
				if got := names(t, target+"/d"); !slices.Equal(got, view.want) {
					t.Errorf("over %d lowers d has %v, want %v", len(view.lowers), got, view.want)
				}
				if _, err := os.Lstat(target + "/d/gone"); !errors.Is(err, unix.ENOENT) {
					t.Errorf("over %d lowers d/gone is there: %v", len(view.lowers), err)
				}
			}
		})
	}
}

// TestXattrWhiteoutInRoot: also a layer's root can hold xattr whiteouts.
func TestXattrWhiteoutInRoot(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	top, bottom := mkdir(t, base+"/top"), mkdir(t, base+"/bottom")
	write(t, bottom+"/gone")
	if err := Trusted.MakeXattrWhiteout(openDir(t, top), "gone"); err != nil {
		t.Fatal(err)
	}
	mounts, err := Plan{Lowers: []string{top, bottom}, Empty: mkdir(t, base+"/empty")}.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	testutil.MountAll(t, mounts, target)
	if got := names(t, target); len(got) != 0 {
		t.Fatalf("still there: %v", got)
	}
}

func TestXattrMarks(t *testing.T) {
	testutil.RequireRoot(t)
	for _, ns := range []XattrNamespace{Trusted, User} {
		fd := openDir(t, t.TempDir())
		for _, mark := range []struct {
			name string
			has  func(int) (bool, error)
			set  func(int) error
		}{
			{"origin", ns.HasOrigin, ns.MarkOrigin},
			{"xattr whiteout", ns.HasOrigin, func(fd int) error { return ns.MakeXattrWhiteout(fd, "w") }},
			{"opaque", ns.IsOpaque, ns.SetOpaque},
			{"xattr whiteout in an opaque directory", ns.IsOpaque, func(fd int) error { return ns.MakeXattrWhiteout(fd, "v") }},
			{"metacopy", ns.Redirected, func(fd int) error { return unix.Fsetxattr(fd, string(ns)+"metacopy", nil, 0) }},
			{"redirect", ns.Redirected, func(fd int) error {
				return errors.Join(unix.Fremovexattr(fd, string(ns)+"metacopy"),
					unix.Fsetxattr(fd, string(ns)+"redirect", []byte("/a/long/way/off"), 0))
			}},
		} {
			if before, err := mark.has(fd); err != nil || before && mark.name == "origin" {
				t.Fatalf("%s: there before it was set, %v", mark.name, err)
			}
			if err := mark.set(fd); err != nil {
				t.Fatal(err)
			}
			if after, err := mark.has(fd); err != nil || !after {
				t.Fatalf("%s: not there, %v", mark.name, err)
			}
		}
	}
	if Trusted.IsOverlayXattr("user.overlay.opaque") || !Trusted.IsOverlayXattr("trusted.overlay.overlay.opaque") ||
		!User.IsOverlayXattr("user.overlay.origin") || User.IsOverlayXattr("user.overlayer") {
		t.Fatal("IsOverlayXattr")
	}
}

func TestXattrErrors(t *testing.T) {
	testutil.RequireRoot(t)
	fd := openDir(t, "/proc/self") // a file system without extended attributes
	for _, ns := range []XattrNamespace{Trusted, User} {
		if err := ns.SetOpaque(fd); !errdefs.IsNotImplemented(err) && !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: %v", ns, err)
		}
		if opaque, err := ns.IsOpaque(fd); opaque || err != nil {
			t.Errorf("%s: %v %v", ns, opaque, err)
		}
	}
	if _, err := Trusted.HasOrigin(-1); !errdefs.IsInternal(err) || !errors.Is(err, unix.EBADF) {
		t.Errorf("a closed descriptor: %v", err)
	}
}
