// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// openExternal opens a root whose mounts go away when the test ends.
func openExternal(t *testing.T) *Store {
	t.Helper()
	testutil.RequireRoot(t)
	root := filepath.Join(t.TempDir(), "root")
	testutil.CheckNoMounts(t, filepath.Dir(root))
	t.Cleanup(func() {
		s := openAgain(t, root)
		if err := errors.Join(s.Sweep(context.Background(), fixed{}), s.Close()); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return openAgain(t, root)
}

// openAgain opens a root that nobody has open. The test closes it.
func openAgain(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shut(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// additionalStore makes a layer in dir: a file, a whiteout, and an owner.
func additionalStore(t *testing.T, dir string) External {
	t.Helper()
	ext := External{
		StorePath: filepath.Join(dir, "store"), DiffID: digest.FromString("layer"),
		Content: Content{Bytes: 4096, Inodes: 4, OpaqueRoot: true, Size: 9000},
	}
	ext.Path = "layers/sha256/" + ext.DiffID.Encoded() + "/fs"
	fs := filepath.Join(ext.StorePath, ext.Path)
	write(t, filepath.Join(fs, "external"), "of the store")
	write(t, filepath.Join(fs, "d/owned"), "x")
	err := errors.Join(os.Chown(filepath.Join(fs, "d/owned"), 5, 7), os.Chmod(fs, 0o751),
		unix.Mknod(filepath.Join(fs, "gone"), unix.S_IFCHR, 0))
	if err != nil {
		t.Fatal(err)
	}
	if ext.Dir, err = os.Open(fs); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ext.Dir.Close(); err != nil {
			t.Error(err)
		}
	})
	return ext
}

func addExternal(t *testing.T, s *Store, n uint64, ext External) {
	t.Helper()
	if err := s.AddExternal(context.Background(), n, ext); err != nil {
		t.Fatal(err)
	}
}

func intact(t *testing.T, ext External) {
	t.Helper()
	want := []string{"d", "external", "gone"}
	if got := names(t, filepath.Join(ext.StorePath, ext.Path)); !reflect.DeepEqual(got, want) {
		t.Fatalf("the store's layer holds %v", got)
	}
}

func isMounted(t *testing.T, s *Store, n uint64) bool {
	t.Helper()
	mounted, _, err := mountedAt(s.layers, name(n)+"/"+fsName)
	if err != nil {
		t.Fatal(err)
	}
	return mounted
}

func TestAddExternal(t *testing.T) {
	for fs, dir := range map[string]func(testing.TB) string{
		"the same file system": func(t testing.TB) string { return t.TempDir() }, "another": testutil.Tmpfs,
	} {
		t.Run(fs, func(t *testing.T) {
			ext := additionalStore(t, dir(t))
			s := openExternal(t)
			defer shut(t, s)
			addExternal(t, s, 7, ext)
			if got := names(t, s.LayerPath(7)); !reflect.DeepEqual(got, []string{"d", "external", "gone"}) {
				t.Errorf("the layer holds %v", got)
			}
			if err := os.WriteFile(s.LayerPath(7)+"/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
				t.Errorf("written to: %v", err)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(s.LayerPath(7), &st); err != nil || st.Flags&unix.ST_NOSUID != 0 {
				t.Errorf("setuid files would not work: %#x, %v", st.Flags, err)
			}
			if err := errors.Join(s.CheckLayer(7), s.CheckExternals([]uint64{7, 8})); err != nil {
				t.Error(err)
			}
			m, err := s.ReadManifest(7)
			want := Manifest{Format: FormatExternal, Version: manifestVersion, Number: 7, DiffID: ext.DiffID, OpaqueRoot: true,
				Bytes: 4096, Inodes: 4, Size: 9000, Created: m.Created, Store: ext.StorePath, StoreLayer: ext.Path}
			if err != nil || !reflect.DeepEqual(m, want) {
				t.Errorf("%+v, %v", m, err)
			}
			if attrs, err := s.LayerAttrs(7); err != nil || attrs.Mode != 0o751 {
				t.Errorf("%+v, %v", attrs, err)
			}
			if got := names(t, s.StagingPath()); len(got) > 0 {
				t.Errorf("staging holds %v", got)
			}
		})
	}
}

// The mount is made without mount_setattr(2) on older kernels.
func TestAttachOld(t *testing.T) {
	ext := additionalStore(t, t.TempDir())
	dir := t.TempDir()
	testutil.CheckNoMounts(t, dir)
	target, err := openDir(unix.AT_FDCWD, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/fs", 0o700); err != nil {
		t.Fatal(err)
	}
	b := &bind{dir: ext.Dir}
	if err := errors.Join(b.attach(target, fsName), b.close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/fs/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("written to: %v", err)
	}
	for range 2 {
		if err := detach(target, fsName); err != nil {
			t.Error(err)
		}
	}
	if got := names(t, dir+"/fs"); len(got) > 0 {
		t.Errorf("still mounted: %v", got)
	}
	same, err := sameMount(int(target.Fd()), int(ext.Dir.Fd()))
	if err := errors.Join(err, target.Close()); err != nil || !same {
		t.Errorf("one file system is not one mount: %v", err)
	}
}

// withoutAdmin runs fn on a thread that may not mount.
func withoutAdmin(t *testing.T, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had, has [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		t.Fatal(err)
	}
	has = had
	has[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	if err := unix.Capset(&header, &has[0]); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Capset(&header, &had[0]); err != nil {
			panic(err) // no other test could be trusted
		}
	}()
	fn()
}

func TestAddExternalRefuses(t *testing.T) {
	s := openExternal(t)
	defer shut(t, s)
	ramfs := t.TempDir()
	testutil.CheckNoMounts(t, ramfs)
	if err := unix.Mount("ramfs", ramfs, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(ramfs, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	good, unmapped := additionalStore(t, t.TempDir()), additionalStore(t, ramfs)
	unmapped.MapIDs = true
	relative, outside, closed, nameless := good, good, good, good
	relative.StorePath, outside.Path, closed.Dir, nameless.DiffID = "store", "../x", nil, ""
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for name, tc := range map[string]struct {
		add func() error
		is  func(error) bool
	}{
		"no privilege":  {func() error { return s.AddExternal(context.Background(), 1, good) }, errdefs.IsFailedPrecondition},
		"no id mapping": {func() error { return s.AddExternal(context.Background(), 1, unmapped) }, errdefs.IsFailedPrecondition},
		"relative":      {func() error { return s.AddExternal(context.Background(), 1, relative) }, errdefs.IsInvalidArgument},
		"outside":       {func() error { return s.AddExternal(context.Background(), 1, outside) }, errdefs.IsInvalidArgument},
		"closed":        {func() error { return s.AddExternal(context.Background(), 1, closed) }, errdefs.IsInvalidArgument},
		"no diffID":     {func() error { return s.AddExternal(context.Background(), 1, nameless) }, errdefs.IsInvalidArgument},
		"ended":         {func() error { return s.AddExternal(ended, 1, good) }, func(err error) bool { return errors.Is(err, context.Canceled) }},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			if name == "no privilege" {
				withoutAdmin(t, func() { err = tc.add() })
			} else {
				err = tc.add()
			}
			if !tc.is(err) {
				t.Errorf("got %v", err)
			}
			for _, dir := range []string{layersDir, stagingDir, externalDir} {
				if got := names(t, filepath.Join(s.path, dir)); len(got) > 0 {
					t.Errorf("%s holds %v", dir, got)
				}
			}
		})
	}
	unmapped.MapIDs = false
	addExternal(t, s, 2, unmapped)
	good.MapIDs = true
	addExternal(t, s, 3, good)
}

func TestAddExternalTwice(t *testing.T) {
	s := openExternal(t)
	defer shut(t, s)
	ext := additionalStore(t, t.TempDir())
	addExternal(t, s, 1, ext)
	makeSnapshot(t, s, 2)
	if err := s.Publish(2, Content{}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{1, 2} {
		if err := s.AddExternal(context.Background(), n, ext); !errdefs.IsAlreadyExists(err) {
			t.Errorf("%d: %v", n, err)
		}
	}
	if err := errors.Join(s.CheckLayer(1), s.CheckLayer(2)); err != nil || !isMounted(t, s, 1) {
		t.Errorf("the layer that was there is gone: %v", err)
	}
}

func TestExternalInUserNamespace(t *testing.T) {
	if !testutil.InUserNS(t, 100000) {
		return
	}
	dir := testutil.Tmpfs(t)
	s := openExternal(t)
	defer shut(t, s)
	addExternal(t, s, 1, additionalStore(t, dir))
	if err := os.WriteFile(s.LayerPath(1)+"/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("written to: %v", err)
	}
}

func TestExternalsAfterAReboot(t *testing.T) {
	ext := additionalStore(t, t.TempDir())
	s := openExternal(t)
	addExternal(t, s, 1, ext)
	addExternal(t, s, 2, ext)
	shut(t, s)
	s = openAgain(t, s.path)
	if !isMounted(t, s, 1) || !isMounted(t, s, 2) {
		t.Fatal("a restart unmounted a layer")
	}
	if err := detach(s.layers, "1/fs"); err != nil { // what a reboot does
		t.Fatal(err)
	}
	shut(t, s)
	s = openAgain(t, s.path)
	defer shut(t, s)
	for range 2 {
		if err := s.MountExternals(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := testutil.MountsUnder(t, s.path); len(got) != 2 {
			t.Fatalf("mounts %v", got)
		}
	}
	for _, n := range []uint64{1, 2} {
		if got := names(t, s.LayerPath(n)); len(got) != 3 {
			t.Errorf("layer %d holds %v", n, got)
		}
	}
}

func TestAStoreThatVanished(t *testing.T) {
	ext := additionalStore(t, t.TempDir())
	s := openExternal(t)
	addExternal(t, s, 1, ext)
	addExternal(t, s, 2, ext)
	aside := ext.StorePath + ".aside"
	if err := os.Rename(ext.StorePath, aside); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckLayer(1); err != nil {
		t.Errorf("what is mounted is there: %v", err)
	}
	if err := errors.Join(detach(s.layers, "1/fs"), detach(s.layers, "2/fs")); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = openAgain(t, s.path)
	defer shut(t, s)
	if err := s.MountExternals(context.Background()); err != nil {
		t.Fatalf("the start fails: %v", err)
	}
	for _, err := range []error{s.CheckLayer(1), s.CheckExternals([]uint64{9, 1})} {
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), ext.StorePath) || !strings.Contains(err.Error(), "mount the store") {
			t.Errorf("got %v", err)
		}
	}
	if err := os.Rename(aside, ext.StorePath); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckExternals([]uint64{1, 2}); err != nil || !isMounted(t, s, 1) {
		t.Errorf("the store is back: %v", err)
	}
	// Deleted under the mount, and made again.
	if err := os.RemoveAll(ext.StorePath); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckLayer(1); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), ext.StorePath) {
		t.Errorf("deleted: %v", err)
	}
	additionalStore(t, filepath.Dir(ext.StorePath))
	if err := s.CheckLayer(1); err != nil || len(names(t, s.LayerPath(1))) != 3 {
		t.Errorf("made again: %v", err)
	}
	if got := testutil.MountsUnder(t, s.LayerPath(1)); len(got) != 1 {
		t.Errorf("mounts %v", got)
	}
}

// A link that was put into a store is not followed, wherever in the path it is.
func TestNoLinkIsFollowedInAStore(t *testing.T) {
	ext := additionalStore(t, t.TempDir())
	s := openExternal(t)
	defer shut(t, s)
	addExternal(t, s, 1, ext)
	if err := detach(s.layers, "1/fs"); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Join(ext.StorePath, ext.Path); dir != ext.StorePath; dir = filepath.Dir(dir) {
		if err := errors.Join(os.Rename(dir, dir+".aside"), os.Symlink(filepath.Base(dir)+".aside", dir)); err != nil {
			t.Fatal(err)
		}
		if err := s.CheckLayer(1); !errdefs.IsUnavailable(err) || isMounted(t, s, 1) {
			t.Errorf("%s is a link: got %v", dir, err)
		}
		if err := errors.Join(os.Remove(dir), os.Rename(dir+".aside", dir)); err != nil {
			t.Fatal(err)
		}
	}
}
