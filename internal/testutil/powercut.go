// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// The ioctl XFS_IOC_GOINGDOWN, which ext4 has under the same number, and what is
// asked of it: nothing that is only in memory reaches the disk, the journal included.
const (
	iocGoingDown = 0x8004587d
	noLogFlush   = 2
)

// CutPower makes the file system at dir, which LoopFS mounted, lose all that no sync
// has written, as after a power cut, and mounts it again. Nothing may be open there.
func CutPower(t testing.TB, dir string, closeAll func()) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	flag := uint32(noLogFlush)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), iocGoingDown, uintptr(unsafe.Pointer(&flag)))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if errno != 0 {
		t.Fatalf("shut %s down: %v", dir, errno)
	}
	closeAll()
	remount(t, dir)
}

// BreakFS makes the ext4 at dir, which LoopFS mounted, find an error in itself and become
// read-only, as it does by default on a disk that fails. RepairFS mounts it again.
func BreakFS(t testing.TB, dir string) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "remount,errors=remount-ro", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	source, _ := sourceOf(t, dir)
	trigger := "/sys/fs/ext4/" + strings.TrimPrefix(source, "/dev/") + "/trigger_fs_error"
	if err := os.WriteFile(trigger, []byte("test"), 0o200); err != nil {
		t.Fatal(err)
	}
}

// RepairFS mounts the file system of BreakFS again. Nothing may be open there.
func RepairFS(t testing.TB, dir string) {
	t.Helper()
	remount(t, dir)
}

// sourceOf is the loop device of what is mounted at dir, and its type.
func sourceOf(t testing.TB, dir string) (source, fstype string) {
	t.Helper()
	out, err := exec.Command("findmnt", "-n", "-o", "SOURCE,FSTYPE", dir).Output()
	fields := strings.Fields(string(out))
	if err != nil || len(fields) != 2 {
		t.Fatalf("find the mount of %s: %v (%s)", dir, err, out)
	}
	return fields[0], fields[1]
}

func remount(t testing.TB, dir string) {
	t.Helper()
	source, fstype := sourceOf(t, dir)
	backing, err := os.ReadFile("/sys/block/" + strings.TrimPrefix(source, "/dev/") + "/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.UnmountAll(dir, 0); err != nil {
		t.Fatal(err)
	}
	m := mount.Mount{Type: fstype, Source: strings.TrimSpace(string(backing)), Options: []string{"loop"}}
	if err := m.Mount(dir); err != nil {
		t.Fatal(err)
	}
}
