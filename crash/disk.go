// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// The ioctl XFS_IOC_GOINGDOWN, which ext4 has under the same number, and what is
// asked of it: nothing that is only in memory reaches the disk, the journal included.
const (
	iocGoingDown = 0x8004587d
	noLogFlush   = 2
)

// mkfs leaves the kernel nothing to initialise later.
var mkfs = map[string][]string{
	"ext4": {"mkfs.ext4", "-q", "-F", "-O", "has_journal", "-E", "lazy_itable_init=0,lazy_journal_init=0"},
	"xfs":  {"mkfs.xfs", "-q", "-f"},
}

// disk is a file system in a sparse file.
type disk struct {
	fstype string
	image  string
	dir    string // where it is mounted
}

func newDisk(ctx context.Context, o options) (*disk, error) {
	d := &disk{fstype: o.fstype, image: filepath.Join(o.work, "disk.img"), dir: filepath.Join(o.work, "disk")}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(d.image, int64(o.sizeMB)<<20); err != nil {
		return nil, err
	}
	args := mkfs[d.fstype]
	if out, err := exec.CommandContext(ctx, args[0], append(slices.Clone(args[1:]), d.image)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", args[0], err, out)
	}
	return d, d.mount()
}

func (d *disk) mount() error {
	// Reading must not make anything dirty that the next cut would have to lose.
	m := mount.Mount{Type: d.fstype, Source: d.image, Options: []string{"loop", "noatime"}}
	if err := m.Mount(d.dir); err != nil {
		return fmt.Errorf("mount %s: %w", d.fstype, err)
	}
	return nil
}

// cutPower makes the file system lose what is only in memory. All writes fail from
// now on.
func (d *disk) cutPower() (err error) {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	flag := uint32(noLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), iocGoingDown, uintptr(unsafe.Pointer(&flag))); errno != 0 {
		return fmt.Errorf("shut %s down: %w", d.dir, errno)
	}
	return nil
}

// unmount unmounts all that is in it, then itself, and waits until the kernel has let
// go of the image: mounted earlier, it would be the file system that was shut down.
func (d *disk) unmount() error {
	points, err := mountinfo.GetMounts(mountinfo.PrefixFilter(d.dir))
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(points) {
		if err := unmountSoon(p.Mountpoint); err != nil {
			return fmt.Errorf("unmount %s: %w", p.Mountpoint, err)
		}
	}
	for range 300 {
		attached, err := d.attached()
		if err != nil || !attached {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%s is still in use by somebody", d.image)
}

// unmountSoon waits for those who were using a mount and were ended just now.
func unmountSoon(dir string) (err error) {
	for range 250 {
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// attached says whether a loop device holds the image.
func (d *disk) attached() (bool, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return false, err
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(b)) == d.image {
			return true, nil
		}
	}
	return false, nil // one that is detached this moment can't be read
}

// close gives the space back.
func (d *disk) close() error { return errors.Join(d.unmount(), os.Remove(d.image)) }
