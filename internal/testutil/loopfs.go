// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// LoopFS makes a file system of sizeMB mebibytes in a file with
// "mkfs.<fstype> mkfsArgs... FILE", mounts it over a loop device and returns the
// mount point. It is unmounted when the test ends. The test fails if that does
// not work.
func LoopFS(t testing.TB, fstype string, sizeMB int, mkfsArgs ...string) string {
	t.Helper()
	dir, err := TryLoopFS(t, fstype, sizeMB, mkfsArgs...)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TryLoopFS is LoopFS for a file system that this machine's mkfs or kernel may
// rightly not know: it returns the error instead of failing the test.
func TryLoopFS(t testing.TB, fstype string, sizeMB int, mkfsArgs ...string) (string, error) {
	t.Helper()
	RequireRoot(t)
	return tryLoopFS(t, t.TempDir(), fstype, sizeMB, mkfsArgs...)
}

// LoopFSInMemory is LoopFS for tests that sync a lot and cut no power: the file is in
// memory, and nobody waits for the disk of the machine.
func LoopFSInMemory(t testing.TB, fstype string, sizeMB int, mkfsArgs ...string) string {
	t.Helper()
	RequireRoot(t)
	dir, err := tryLoopFS(t, memory(t), fstype, sizeMB, mkfsArgs...)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// memory is a tmpfs that goes when the kernel has let go of what is in it, which for the
// file of a loop device is a while after the unmount.
func memory(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func tryLoopFS(t testing.TB, base, fstype string, sizeMB int, mkfsArgs ...string) (string, error) {
	t.Helper()
	mkfs := "mkfs." + fstype
	RequireTool(t, mkfs)
	target := filepath.Join(base, "fs")
	CheckNoMounts(t, target)
	image := filepath.Join(base, "image")
	if err := makeSparse(image, int64(sizeMB)<<20); err != nil {
		return "", err
	}
	if out, err := exec.Command(mkfs, append(mkfsArgs, image)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s %v: %w: %s", mkfs, mkfsArgs, err, out)
	}

	if err := os.Mkdir(target, 0o755); err != nil {
		return "", err
	}
	m := mount.Mount{Type: fstype, Source: image, Options: []string{"loop"}}
	if err := m.Mount(target); err != nil {
		return "", fmt.Errorf("mount a %s made with %v: %w", fstype, mkfsArgs, err)
	}
	t.Cleanup(func() {
		if err := mount.UnmountAll(target, 0); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
	return target, nil
}

func makeSparse(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
