// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The ioctls FIFREEZE and FITHAW of linux/fs.h.
const (
	iocFreeze = 0xc0045877
	iocThaw   = 0xc0045878
)

// below is a file system that holds the file under another that has no ioctl to lose what
// is in memory. While it is frozen nothing is written to that file, and what was is a disk
// after a power cut.
type below struct {
	disk
	work string
}

func newBelow(ctx context.Context, o options) (*below, error) {
	b := &below{
		disk: disk{fstype: "ext4", image: filepath.Join(o.work, "below.img"), dir: filepath.Join(o.work, "below")},
		work: o.work,
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, err
	}
	if err := makeFS(ctx, b.fstype, b.image, 2*o.sizeMB); err != nil {
		return nil, err
	}
	return b, b.mount()
}

// copyOf returns a copy of what a file holds at this moment. Who waits for a write to it
// hears of none after that, and is killed before he could: kill must not wait.
func (b *below) copyOf(file string, kill func() error) (image string, err error) {
	f, err := os.Open(b.dir)
	if err != nil {
		return file, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.IoctlSetInt(int(f.Fd()), iocFreeze, 0); err != nil {
		return file, fmt.Errorf("freeze %s: %w", b.dir, err)
	}
	killErr := kill()
	image = filepath.Join(b.work, "cut.img")
	out, copyErr := exec.Command("cp", "--sparse=always", file, image).CombinedOutput()
	if copyErr != nil {
		copyErr = fmt.Errorf("copy the disk: %w: %s", copyErr, out)
	}
	return image, errors.Join(killErr, copyErr, unix.IoctlSetInt(int(f.Fd()), iocThaw, 0))
}
