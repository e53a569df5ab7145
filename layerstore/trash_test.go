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
	"time"

	"golang.org/x/sys/unix"
)

// waitForEmptyTrash waits for the background to delete all.
func waitForEmptyTrash(t *testing.T, s *Store) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(names(t, filepath.Join(s.path, trashDir))) > 0; {
		if time.Now().After(end) {
			t.Fatalf("still in the trash: %v", names(t, filepath.Join(s.path, trashDir)))
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTrashIsEmptiedInTheBackground(t *testing.T) {
	s := openStore(t)
	outside := filepath.Join(filepath.Dir(s.path), "outside")
	write(t, outside, "precious")
	for n := uint64(1); n < 6; n++ {
		makeSnapshot(t, s, n)
		fill(t, s.UpperPath(n))
		if err := os.Symlink(filepath.Dir(outside), filepath.Join(s.UpperPath(n), "way out")); err != nil {
			t.Fatal(err)
		}
		if err := s.TrashSnapshot(n); err != nil {
			t.Fatal(err)
		}
		if err := s.TrashSnapshot(n); err != nil {
			t.Errorf("the second time: %v", err)
		}
	}
	waitForEmptyTrash(t, s)
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}

func TestTrashFindsAFreeName(t *testing.T) {
	s := openStore(t)
	s.stop() // nobody deletes
	<-s.stopped
	for range 3 {
		makeSnapshot(t, s, 5)
		if err := s.TrashSnapshot(5); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, filepath.Join(s.path, trashDir)); !reflect.DeepEqual(got, []string{"5", "5-1", "5-2"}) {
		t.Errorf("trash holds %v", got)
	}
	emptyTrash(t, s)
}

func TestDeletionGoesOnAfterARestart(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	write(t, filepath.Join(root, trashDir, "12/fs/d/f"), "left by a crash")
	s, err := Open(Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	waitForEmptyTrash(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestOneItemThatStaysDoesNotKeepTheOthers(t *testing.T) {
	s := openStore(t)
	s.stop()
	<-s.stopped
	trash := filepath.Join(s.path, trashDir)
	write(t, filepath.Join(trash, "1/busy/f"), "")
	write(t, filepath.Join(trash, "2/f"), "")
	write(t, filepath.Join(trash, "3/f"), "")
	busy := filepath.Join(trash, "1/busy")
	if err := unix.Mount(busy, busy, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	err := s.EmptyTrash(context.Background())
	if err := unix.Unmount(busy, 0); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EBUSY) {
		t.Errorf("got %v", err)
	}
	if got := names(t, trash); !reflect.DeepEqual(got, []string{"1"}) {
		t.Errorf("trash holds %v", got)
	}
	emptyTrash(t, s)
}

func TestTwoEmptyTheTrash(t *testing.T) {
	s := openStore(t)
	for n := uint64(1); n < 20; n++ {
		makeSnapshot(t, s, n)
		write(t, filepath.Join(s.UpperPath(n), "a/b/c"), "x")
		if err := s.TrashSnapshot(n); err != nil {
			t.Fatal(err)
		}
	}
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() { errs <- s.EmptyTrash(context.Background()) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := names(t, filepath.Join(s.path, trashDir)); len(got) != 0 {
		t.Errorf("EmptyTrash returned with %v in the trash", got)
	}
}

func TestSweep(t *testing.T) {
	s := openStore(t)
	for n := uint64(1); n <= 6; n++ {
		makeSnapshot(t, s, n)
	}
	for _, n := range []uint64{4, 5} {
		if err := s.Publish(n, Content{}); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(s.path, stagingDir, "7/fs/f"), "")
	write(t, filepath.Join(s.path, stagingDir, "8/fs/f"), "")
	write(t, filepath.Join(s.path, stagingDir, ".probe-x/f"), "")
	write(t, filepath.Join(s.path, snapshotsDir, "notes"), "an administrator's")
	end3, end8 := s.Begin(3), s.Begin(8)
	if err := s.Sweep(context.Background(), fixed{snapshots: []uint64{1, 4}, layers: []uint64{4, 6}}); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string][]string{
		snapshotsDir: {"1", "3", "notes"}, layersDir: {"4"}, stagingDir: {"8"},
	} {
		if got := names(t, filepath.Join(s.path, dir)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s holds %v, want %v", dir, got, want)
		}
	}
	end3()
	end8()
	if err := s.Sweep(context.Background(), fixed{}); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string][]string{snapshotsDir: {"notes"}, layersDir: {}, stagingDir: {}} {
		if got := names(t, filepath.Join(s.path, dir)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s holds %v, want %v", dir, got, want)
		}
	}
}

func TestRecover(t *testing.T) {
	s := openStore(t)
	for n := uint64(1); n <= 4; n++ {
		makeSnapshot(t, s, n)
		write(t, filepath.Join(s.UpperPath(n), "data"), "of a container")
	}
	// 1 was published, its transaction never came. 2 was committed and still
	// has its workdir. 3 was committed and its rename was lost. 4 is as it
	// should be, and 5 is gone.
	for _, n := range []uint64{1, 2} {
		if err := s.Publish(n, Content{}); err != nil {
			t.Fatal(err)
		}
	}
	named := fixed{snapshots: []uint64{1, 4, 5}, layers: []uint64{2, 3}}
	missing, err := s.Recover(context.Background(), named, named.snapshots)
	if err != nil || !reflect.DeepEqual(missing, []uint64{5}) {
		t.Errorf("missing %v, %v", missing, err)
	}
	if err := s.Sweep(context.Background(), named); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string][]string{snapshotsDir: {"1", "4"}, layersDir: {"2", "3"}} {
		if got := names(t, filepath.Join(s.path, dir)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s holds %v, want %v", dir, got, want)
		}
	}
	for _, path := range []string{s.UpperPath(1), s.LayerPath(2), s.LayerPath(3), s.UpperPath(4)} {
		if !slices.Contains(names(t, path), "data") {
			t.Errorf("%s lost its data", path)
		}
	}
	for _, n := range []uint64{2, 3} {
		if slices.Contains(names(t, filepath.Dir(s.LayerPath(n))), workName) {
			t.Errorf("layer %d still has a workdir", n)
		}
	}
}

func TestParseName(t *testing.T) {
	for in, ok := range map[string]bool{"1": true, "42": true, "0": false, "01": false, "-1": false, "+1": false, "": false, "x": false, "1x": false, "99999999999999999999": false} {
		if n, got := parseName(in); got != ok || (ok && name(n) != in) {
			t.Errorf("%q: %d, %v", in, n, got)
		}
	}
}
