// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

func TestReadOnly(t *testing.T) {
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			f := newFixture(t, program)
			f.sample()
			dir := f.mount("m", Request{})
			got, err := os.ReadFile(filepath.Join(dir, "data/c"))
			must(t, err)
			if string(got) != "c" {
				t.Errorf("data/c is %q", got)
			}
			if _, err := os.Lstat(filepath.Join(dir, "data/b")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a deleted file: %v", err)
			}
			if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
				t.Errorf("writing: %v, want a read-only file system", err)
			}
			must(t, f.Unmount(ctx, dir))
			if list, err := f.List(ctx); err != nil || len(list) != 0 {
				t.Errorf("left: %+v, %v", list, err)
			}
		})
	}
}

// Images of no layer, of one, and of layers that change nothing.
func TestSmallImages(t *testing.T) {
	for name, layers := range map[string][]testimage.Layer{
		"none":      nil,
		"one":       {{testimage.File("f", "f")}},
		"empty":     {{}},
		"one empty": {{testimage.File("f", "f")}, {}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, config.MountProgramKernel)
			f.load(ref, layers...)
			ro := f.mount("ro", Request{})
			if err := os.Mkdir(filepath.Join(ro, "d"), 0o755); !errors.Is(err, unix.EROFS) {
				t.Errorf("writing to a read-only mount: %v", err)
			}
			must(t, f.Unmount(ctx, ro))
			rw := f.mount("rw", Request{Access: ReadWrite, Name: "work"})
			must(t, os.WriteFile(filepath.Join(rw, "new"), []byte("n"), 0o600))
			if changes, err := f.Changes(ctx, rw); err != nil || len(changes) != 1 || changes[0] != (Change{Added, "/new"}) {
				t.Errorf("changes: %v, %v", changes, err)
			}
			want := f.tree(rw)
			f.commit("work", "example.test/more:1")
			must(t, f.Unmount(ctx, "work"))
			again := f.mount("again", Request{Ref: "example.test/more:1"})
			if diffs := want.Diff(f.tree(again)); len(diffs) > 0 {
				t.Errorf("the commit: %s", strings.Join(diffs, "\n"))
			}
		})
	}
}

func TestReadWriteStays(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	dir := f.mount("m", Request{Access: ReadWrite, Name: "work"})
	must(t, os.WriteFile(filepath.Join(dir, "etc/config"), []byte("new\n"), 0o644))
	want := f.tree(dir)
	must(t, f.Unmount(ctx, dir))
	s, err := f.Find(ctx, "work")
	must(t, err)
	if s.State != None || s.Dir != "" || s.Size == 0 || s.Image != ref {
		t.Errorf("unmounted: %+v", s)
	}
	again := f.mount("other", Request{Access: ReadWrite, Name: "work"})
	if diffs := want.Diff(f.tree(again)); len(diffs) > 0 {
		t.Errorf("mounted again: %s", strings.Join(diffs, "\n"))
	}
	must(t, f.Unmount(ctx, "work"))
	must(t, f.Remove(ctx, "work", Unmounted))
	if _, err := f.Find(ctx, "work"); !errdefs.IsNotFound(err) {
		t.Errorf("removed: %v", err)
	}
}

// A mount keeps its image's layers, whatever becomes of the image.
func TestMountKeepsLayers(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	ro := f.mount("ro", Request{})
	rw := f.mount("rw", Request{Access: ReadWrite, Name: "work"})
	want := f.tree(ro)
	must(t, os.WriteFile(filepath.Join(rw, "new"), nil, 0o644))
	_, err := f.store.Remove(ctx, ref)
	must(t, err)
	_, err = f.store.GC(ctx, imagestore.DropUnfinished)
	must(t, err)
	if diffs := want.Diff(f.tree(ro)); len(diffs) > 0 {
		t.Errorf("after the image was removed: %s", strings.Join(diffs, "\n"))
	}
	f.commit(rw, "example.test/kept:1")
	must(t, f.Unmount(ctx, ro))
	must(t, f.Remove(ctx, "work", Unmounting))
	_, err = f.store.Remove(ctx, "example.test/kept:1")
	must(t, err)
	_, err = f.store.GC(ctx, imagestore.DropUnfinished)
	must(t, err)
	entries, err := os.ReadDir(filepath.Join(f.store.StorePath(), "layers"))
	must(t, err)
	if len(entries) > 0 {
		t.Errorf("layers that nothing needs: %v", entries)
	}
}

func TestRefusedMounts(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	f.load("example.test/other:1", testimage.Layer{testimage.File("f", "f")})
	full := f.at("full")
	file := filepath.Join(full, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	f.mount("used", Request{Access: ReadWrite, Name: "used"})
	f.mount("free", Request{Access: ReadWrite, Name: "free"})
	must(t, f.Unmount(ctx, "free"))
	empty := f.at("empty")
	for _, tc := range []struct {
		name string
		r    Request
		is   func(error) bool
		says string
	}{
		{"no image", Request{Ref: "nosuch", Dir: empty}, errdefs.IsNotFound, "nosuch"},
		{"no reference", Request{Ref: "A B", Dir: empty}, isReference, "A B"},
		{"no directory", Request{Ref: ref, Dir: filepath.Join(empty, "x")}, errdefs.IsNotFound, "make it first"},
		{"a file", Request{Ref: ref, Dir: file}, errdefs.IsFailedPrecondition, "file"},
		{"not empty", Request{Ref: ref, Dir: full}, errdefs.IsFailedPrecondition, "not empty"},
		{"the store", Request{Ref: ref, Dir: f.store.Root(), Cover: CoverAnything}, errdefs.IsFailedPrecondition, "part of the image store"},
		{"in the store", Request{Ref: ref, Dir: f.store.StorePath() + "/empty"}, errdefs.IsFailedPrecondition, "part of the image store"},
		{"around the store", Request{Ref: ref, Dir: filepath.Dir(f.store.Root()), Cover: CoverAnything}, errdefs.IsFailedPrecondition, "part of the image store"},
		{"the file system's root", Request{Ref: ref, Dir: "/", Cover: CoverAnything}, errdefs.IsFailedPrecondition, "part of the image store"},
		{"bad name", Request{Ref: ref, Dir: empty, Access: ReadWrite, Name: "sha256:1"}, isName, "sha256:1"},
		{"an unpacker's name", Request{Ref: ref, Dir: empty, Access: ReadWrite, Name: "extract-1"}, isName, "extract-"},
		{"read-only with a name", Request{Ref: ref, Dir: empty, Name: "n"}, isName, "no name"},
		{"mounted already", Request{Ref: ref, Dir: empty, Access: ReadWrite, Name: "used"}, errdefs.IsFailedPrecondition, "mounted at"},
		{"of another image", Request{Ref: "example.test/other:1", Dir: empty, Access: ReadWrite, Name: "free"}, errdefs.IsAlreadyExists, ref},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := f.Mount(ctx, tc.r)
			if !tc.is(err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want one of another class, or that says %q", err, tc.says)
			}
		})
	}
	if list, err := f.List(ctx); err != nil || len(list) != 2 {
		t.Errorf("refused mounts left something: %+v, %v", list, err)
	}
	_, err := f.Mount(ctx, Request{Ref: ref, Dir: full, Cover: CoverAnything})
	must(t, err)
}

func isName(err error) bool      { return errors.Is(err, ErrName) }
func isReference(err error) bool { return errors.Is(err, imagestore.ErrReference) }

// The directory is where a link leads, and is found by both names.
func TestMountAtLink(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	dir := f.at("real")
	link := filepath.Join(f.dir, "link")
	must(t, os.Symlink("real", link))
	s, err := f.Mount(ctx, Request{Ref: ref, Dir: link})
	must(t, err)
	if s.Dir != dir {
		t.Errorf("mounted at %s, want %s", s.Dir, dir)
	}
	must(t, f.Unmount(ctx, link))
}

func TestUnmountRefusals(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	dir := f.mount("m", Request{Access: ReadWrite, Name: "work"})
	if err := f.Remove(ctx, "work", Unmounted); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("removing a mounted snapshot: %v", err)
	}
	for _, target := range []string{f.dir, "/proc", "nosuch"} {
		if err := f.Unmount(ctx, target); !errdefs.IsNotFound(err) {
			t.Errorf("unmounting %s: %v", target, err)
		}
	}
	used, err := os.Open(dir)
	must(t, err)
	if err := f.Unmount(ctx, dir); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("unmounting what is in use: %v", err)
	}
	must(t, used.Close())
	must(t, f.Unmount(ctx, dir))
	if err := f.Unmount(ctx, "work"); !errdefs.IsNotFound(err) {
		t.Errorf("unmounting twice: %v", err)
	}
}

// Mounts that went away by themselves are noticed, and nothing that came to the same
// place is taken for one.
func TestStale(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	ro := f.mount("ro", Request{})
	rw := f.mount("rw", Request{Access: ReadWrite, Name: "work"})
	for _, dir := range []string{ro, rw} {
		must(t, unix.Unmount(dir, 0))
	}
	must(t, unix.Mount("tmpfs", rw, "tmpfs", 0, ""))
	list, err := f.List(ctx)
	must(t, err)
	for _, s := range list {
		if s.State != Stale {
			t.Errorf("state of %+v, want stale", s)
		}
	}
	must(t, f.Unmount(ctx, "work")) // only the record
	must(t, unix.Unmount(rw, 0))
	f.mount("another", Request{})
	list, err = f.List(ctx)
	must(t, err)
	if len(list) != 2 {
		t.Errorf("the view that is gone is still there: %+v", list)
	}
}

// A record of another boot is stale, whatever is mounted now.
func TestStaleAfterReboot(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	dir := f.mount("m", Request{Access: ReadWrite, Name: "work"})
	s, err := f.Find(ctx, "work")
	must(t, err)
	must(t, unix.Unmount(dir, 0))
	s.info.Labels[labelBoot] = "another"
	must(t, f.label(f.store.Context(ctx), "work", s.info.Labels))
	if s, err = f.Find(ctx, "work"); err != nil || s.State != Stale {
		t.Errorf("after a reboot: %+v, %v", s, err)
	}
	if _, err := f.Mount(ctx, Request{Ref: ref, Dir: dir, Access: ReadWrite, Name: "work"}); err != nil {
		t.Errorf("mounting it again: %v", err)
	}
}

// A mount lives in another mount namespace as long as a process does.
func TestElsewhere(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	dir := f.mount("m", Request{Access: ReadWrite, Name: "work"})
	other := exec.Command("unshare", "-m", "sh", "-c", "echo; exec sleep 600")
	out, err := other.StdoutPipe()
	must(t, err)
	must(t, other.Start())
	_, err = out.Read(make([]byte, 1)) // it has its namespace, with the mount
	must(t, err)
	must(t, unix.Unmount(dir, 0))
	for name, refused := range map[string]func() error{
		"unmount": func() error { return f.Unmount(ctx, "work") },
		"remove":  func() error { return f.Remove(ctx, "work", Unmounting) },
		"mount": func() error {
			_, err := f.Mount(ctx, Request{Ref: ref, Dir: dir, Access: ReadWrite, Name: "work"})
			return err
		},
	} {
		if err := refused(); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "another mount namespace") {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, other.Process.Kill())
	_ = other.Wait() // it was killed
	if s, err := f.Find(ctx, "work"); err != nil || s.State != Stale {
		t.Errorf("after its end: %+v, %v", s, err)
	}
}
