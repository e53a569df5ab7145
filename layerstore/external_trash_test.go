// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// writable takes the protection away that a deletion would run into otherwise.
func writable(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}

func TestTrashLeavesTheStoreAlone(t *testing.T) {
	for how, remove := range map[string]func(*Store) error{
		"removed": func(s *Store) error { return s.TrashLayer(1) },
		"swept":   func(s *Store) error { return s.Sweep(context.Background(), fixed{}) },
		"swept, with its note lost": func(s *Store) error {
			return errors.Join(s.forgetNote(1), s.Sweep(context.Background(), fixed{}))
		},
		"given up": func(s *Store) error { return s.DiscardPatch(1) },
	} {
		t.Run(how, func(t *testing.T) {
			ext := additionalStore(t, t.TempDir())
			s := openExternal(t)
			defer shut(t, s)
			addExternal(t, s, 1, ext)
			writable(t, s.LayerPath(1))
			if err := remove(s); err != nil {
				t.Fatal(err)
			}
			emptyTrash(t, s)
			intact(t, ext)
			for _, dir := range []string{layersDir, externalDir, trashDir} {
				if got := names(t, filepath.Join(s.path, dir)); len(got) > 0 {
					t.Errorf("%s holds %v", dir, got)
				}
			}
			if got := testutil.MountsUnder(t, s.path); len(got) > 0 {
				t.Errorf("mounts %v", got)
			}
			if err := s.TrashLayer(1); err != nil {
				t.Errorf("the second time: %v", err)
			}
			if err := s.CheckExternals([]uint64{1}); err != nil {
				t.Errorf("it is no external layer any more: %v", err)
			}
		})
	}
}

// A layer that can't be unmounted is not moved: its mount would come along.
func TestTrashKeepsWhatItCannotUnmount(t *testing.T) {
	ext := additionalStore(t, t.TempDir())
	s := openExternal(t)
	defer shut(t, s)
	addExternal(t, s, 1, ext)
	var err error
	withoutAdmin(t, func() { err = s.TrashLayer(1) })
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
	if err := s.CheckLayer(1); err != nil || !isMounted(t, s, 1) {
		t.Errorf("%v", err)
	}
}

// Whatever way a mount came into the trash, what is in it is not ours.
func TestDeletionEntersNoMount(t *testing.T) {
	ext := additionalStore(t, t.TempDir())
	s := openExternal(t)
	defer shut(t, s)
	s.stop() // nobody deletes
	<-s.stopped
	target := filepath.Join(s.path, trashDir, "5/fs")
	write(t, filepath.Join(target, "below"), "x")
	write(t, filepath.Join(s.path, trashDir, "6/fs/f"), "x")
	if err := unix.Mount(filepath.Join(ext.StorePath, ext.Path), target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	err := s.EmptyTrash(context.Background())
	if err := unix.Unmount(target, 0); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v", err)
	}
	intact(t, ext)
	if got := names(t, filepath.Join(s.path, trashDir)); !reflect.DeepEqual(got, []string{"5"}) {
		t.Errorf("trash holds %v", got)
	}
	emptyTrash(t, s)
}

// Before openat2(2), too.
func TestOpenInMount(t *testing.T) {
	ext := additionalStore(t, testutil.Tmpfs(t))
	s := openExternal(t)
	defer shut(t, s)
	addExternal(t, s, 1, ext)
	if _, err := openInMount(s.layers, "1/fs/d"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("got %v", err)
	}
	fd, err := openInMount(ext.Dir, "d")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Close(fd); err != nil {
		t.Error(err)
	}
}

func TestStaleNotes(t *testing.T) {
	ext := additionalStore(t, t.TempDir())
	s := openExternal(t)
	for n := uint64(1); n <= 3; n++ {
		addExternal(t, s, n, ext)
	}
	// A crash after 1 was moved, and before it was forgotten; and half a note.
	if err := errors.Join(detach(s.layers, "1/fs"), os.RemoveAll(filepath.Dir(s.LayerPath(1)))); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.path, externalDir, "2"), `{"store":`)
	write(t, filepath.Join(s.path, externalDir, "4.tmp"), `{"store":`)
	if err := detach(s.layers, "2/fs"); err != nil {
		t.Fatal(err)
	}
	shut(t, s)
	s = openAgain(t, s.path)
	defer shut(t, s)
	if err := s.MountExternals(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !isMounted(t, s, 2) || !isMounted(t, s, 3) {
		t.Error("not mounted")
	}
	got := names(t, filepath.Join(s.path, externalDir))
	if slices.Contains(got, "1") || !slices.Contains(got, "2") || !slices.Contains(got, "3") {
		t.Errorf("notes %v", got)
	}
}

// Recover and Sweep come before MountExternals, and leave layers alone.
func TestRecoverWithExternals(t *testing.T) {
	ext := additionalStore(t, t.TempDir())
	s := openExternal(t)
	addExternal(t, s, 1, ext)
	addExternal(t, s, 2, ext)
	writable(t, s.LayerPath(1))
	write(t, s.LayerPath(1)+"/work", "the store's")
	shut(t, s)
	s = openAgain(t, s.path)
	defer shut(t, s)
	named := fixed{layers: []uint64{1}}
	if _, err := s.Recover(context.Background(), named, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Sweep(context.Background(), named), s.MountExternals(context.Background())); err != nil {
		t.Fatal(err)
	}
	emptyTrash(t, s)
	if got := names(t, s.LayerPath(1)); !reflect.DeepEqual(got, []string{"d", "external", "gone", "work"}) {
		t.Errorf("the layer holds %v", got)
	}
	if got := names(t, filepath.Join(s.path, layersDir)); !reflect.DeepEqual(got, []string{"1"}) {
		t.Errorf("layers %v", got)
	}
}
