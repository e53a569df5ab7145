// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestOpenMakesTheLayout(t *testing.T) {
	old := syscall.Umask(0o777)
	s := openStore(t)
	syscall.Umask(old)
	for rel, want := range map[string]os.FileMode{
		".": 0o700, layersDir: 0o700, snapshotsDir: 0o700, stagingDir: 0o700, trashDir: 0o700, emptyDir: 0o755,
	} {
		fi, err := os.Stat(filepath.Join(s.path, rel))
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v (%v), want %v", rel, fi.Mode(), err, want)
		}
	}
}

func TestOpenTwice(t *testing.T) {
	s := openStore(t)
	_, err := Open(Config{Root: s.path})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("got %v", err)
	}
}

func TestOpenRefusesAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "not a directory")
	if _, err := Open(Config{Root: path}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
}

func TestMakeSnapshot(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	s := openStore(t)
	attrs := RootAttrs{UID: 12, GID: 34, Mode: 0o1777, xattrs: map[string][]byte{"user.x": []byte("y")}}
	if err := s.MakeSnapshot(7, attrs); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.UpperPath(7), &st); err != nil {
		t.Fatal(err)
	}
	if st.Uid != 12 || st.Gid != 34 || st.Mode&0o7777 != 0o1777 {
		t.Errorf("upper: %d:%d %o", st.Uid, st.Gid, st.Mode)
	}
	value := make([]byte, 8)
	if n, err := unix.Getxattr(s.UpperPath(7), "user.x", value); err != nil || string(value[:n]) != "y" {
		t.Errorf("xattr: %q, %v", value[:max(n, 0)], err)
	}
	if fi, err := os.Stat(s.WorkPath(7)); err != nil || fi.Mode().Perm() != workMode {
		t.Errorf("work: %v, %v", fi.Mode(), err)
	}
	if err := s.CheckSnapshot(7); err != nil {
		t.Error(err)
	}
	if got := names(t, filepath.Join(s.path, stagingDir)); len(got) != 0 {
		t.Errorf("staging holds %v", got)
	}
}

func TestPublish(t *testing.T) {
	s := openStore(t)
	makeSnapshot(t, s, 3)
	write(t, filepath.Join(s.UpperPath(3), "d/f"), "data")
	content, err := s.Seal(context.Background(), 3)
	if err != nil || content.Inodes != 3 || content.Empty {
		t.Fatalf("%+v, %v", content, err)
	}
	if err := s.Publish(3, content); err != nil {
		t.Fatal(err)
	}
	if err := s.DropWork(3); err != nil {
		t.Fatal(err)
	}
	if got := names(t, filepath.Dir(s.LayerPath(3))); !reflect.DeepEqual(got, []string{fsName, layerFile}) {
		t.Errorf("the layer holds %v", got)
	}
	m, err := s.ReadManifest(3)
	if err != nil || m.Format != FormatDirectory || m.Number != 3 || m.Bytes != content.Bytes || m.Inodes != 3 {
		t.Errorf("%+v, %v", m, err)
	}
	if err := s.CheckSnapshot(3); !errdefs.IsUnavailable(err) {
		t.Errorf("still a snapshot: %v", err)
	}
}

func TestUnpublish(t *testing.T) {
	s := openStore(t)
	makeSnapshot(t, s, 3)
	if err := s.Publish(3, Content{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Unpublish(3); err != nil {
		t.Fatal(err)
	}
	if err := s.CheckSnapshot(3); err != nil {
		t.Errorf("not a whole snapshot again: %v", err)
	}
	if err := s.CheckLayer(3); !errdefs.IsUnavailable(err) {
		t.Errorf("still a layer: %v", err)
	}
}

func TestDropWorkThatWasUsed(t *testing.T) {
	s := openStore(t)
	makeSnapshot(t, s, 3)
	write(t, filepath.Join(s.WorkPath(3), "work/incompat/volatile"), "")
	if err := s.Publish(3, Content{}); err != nil {
		t.Fatal(err)
	}
	if err := s.DropWork(3); err != nil {
		t.Fatal(err)
	}
	if err := s.DropWork(3); err != nil {
		t.Errorf("the second time: %v", err)
	}
	if got := names(t, filepath.Dir(s.LayerPath(3))); !reflect.DeepEqual(got, []string{fsName, layerFile}) {
		t.Errorf("the layer holds %v", got)
	}
	emptyTrash(t, s)
}

func TestLayerAttrs(t *testing.T) {
	s := openStore(t)
	want := RootAttrs{UID: 1, GID: 2, Mode: 0o2750, xattrs: map[string][]byte{"user.a": {0, 1}, "trusted.b": []byte("c")}}
	if err := s.MakeSnapshot(1, want); err != nil {
		t.Fatal(err)
	}
	for _, marker := range []string{"trusted.overlay.opaque", "user.overlay.origin"} {
		if err := unix.Setxattr(s.UpperPath(1), marker, []byte("y"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Publish(1, Content{}); err != nil {
		t.Fatal(err)
	}
	got, err := s.LayerAttrs(1)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if got.IsDefault() || !DefaultAttrs().IsDefault() {
		t.Error("IsDefault")
	}
}

func TestRemovedRoot(t *testing.T) {
	s := openStore(t)
	makeSnapshot(t, s, 1)
	if err := os.RemoveAll(s.path); err != nil {
		t.Fatal(err)
	}
	_, measureErr := s.Measure(context.Background(), 1)
	_, attrsErr := s.LayerAttrs(1)
	for what, err := range map[string]error{
		"make":    s.MakeSnapshot(2, DefaultAttrs()),
		"check":   s.CheckSnapshot(1),
		"publish": s.Publish(1, Content{}),
		"measure": measureErr,
		"attrs":   attrsErr,
	} {
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), s.path+" was removed") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
