// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// MountsUnder returns the mount points at or below dir, deepest first.
func MountsUnder(t testing.TB, dir string) []string {
	t.Helper()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil // the directory is gone, and what was mounted in it with it
	}
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(real))
	if err != nil {
		t.Fatalf("read the mount table: %v", err)
	}
	points := make([]string, 0, len(infos))
	for _, info := range infos {
		points = append(points, info.Mountpoint)
	}
	slices.Sort(points)
	slices.Reverse(points)
	return points
}

// CheckNoMounts fails the test if a mount is left at or below dir when the test
// ends. Call it before anything that registers its own cleanup: cleanups run
// last in, first out. A leaked mount is detached, so that removing the
// temporary directory cannot reach through it.
func CheckNoMounts(t testing.TB, dir string) {
	t.Helper()
	t.Cleanup(func() {
		for _, point := range MountsUnder(t, dir) {
			t.Errorf("leaked mount: %s", point)
			if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				t.Errorf("detach leaked mount %s: %v", point, err)
			}
		}
	})
}

// MountAll mounts a snapshotter's answer at target with containerd's own mount
// code and unmounts it when the test ends.
func MountAll(t testing.TB, mounts []mount.Mount, target string) {
	t.Helper()
	if err := mount.All(mounts, target); err != nil {
		t.Fatalf("mount %+v at %s: %v", mounts, target, err)
	}
	t.Cleanup(func() {
		if err := mount.UnmountAll(target, 0); err != nil {
			t.Errorf("unmount %s: %v", target, err)
		}
	})
}

// Tmpfs returns the path of a fresh tmpfs, unmounted when the test ends.
func Tmpfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	CheckNoMounts(t, dir)
	MountAll(t, []mount.Mount{{Type: "tmpfs", Source: "tmpfs"}}, dir)
	return dir
}
