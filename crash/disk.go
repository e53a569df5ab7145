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
	// Metadata once, as on a disk of which there is one.
	"btrfs": {"mkfs.btrfs", "-q", "-f", "-m", "single"},
}

// disk is a file system in a sparse file.
type disk struct {
	fstype string
	image  string
	dir    string // where it is mounted
	below  *below // what the file is on, if that is how power is cut
}

func newDisk(ctx context.Context, o options) (*disk, error) {
	d := &disk{fstype: o.fstype, image: filepath.Join(o.work, "disk.img"), dir: filepath.Join(o.work, "disk")}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, err
	}
	if d.fstype == "btrfs" {
		var err error
		if d.below, err = newBelow(ctx, o); err != nil {
			return nil, err
		}
		d.image = filepath.Join(d.below.dir, "disk.img")
	}
	if err := makeFS(ctx, d.fstype, d.image, o.sizeMB); err != nil {
		return d, err
	}
	return d, d.mount()
}

// makeFS makes a file system in a new sparse file.
func makeFS(ctx context.Context, fstype, image string, sizeMB int) error {
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, int64(sizeMB)<<20); err != nil {
		return err
	}
	args := mkfs[fstype]
	if out, err := exec.CommandContext(ctx, args[0], append(slices.Clone(args[1:]), image)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", args[0], err, out)
	}
	return nil
}

func (d *disk) mount() error { return mountImage(d.fstype, d.image, d.dir) }

func mountImage(fstype, image, dir string) error {
	// Reading must not make anything dirty that the next cut would have to lose.
	m := mount.Mount{Type: fstype, Source: image, Options: []string{"loop", "noatime"}}
	if err := m.Mount(dir); err != nil {
		return fmt.Errorf("mount %s: %w", fstype, err)
	}
	return nil
}

// cutPower makes the file system lose what is only in memory. All writes fail from
// now on, or their process is killed.
func (d *disk) cutPower(kill func() error) (err error) {
	if d.below != nil {
		d.image, err = d.below.copyOf(d.image, kill)
		return err
	}
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
func (d *disk) close() error {
	err := errors.Join(d.unmount(), os.Remove(d.image))
	if d.below != nil {
		err = errors.Join(err, d.below.close())
	}
	return err
}
