// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// WriteFile makes name in the open directory dir hold data: a temporary file is
// written, synced and renamed over it, so that a power cut leaves either what was
// there or all of data. The rename itself is durable once dir is synced, which
// is left to the caller, who often has more to do there.
func WriteFile(dir *os.File, name string, data []byte, mode uint32) error {
	return replaceFile(dir, name, data, mode, (*os.File).Sync)
}

// ReplaceFile is WriteFile for what only has to survive the process: a crash of
// it leaves one or the other, a power cut may leave nothing.
func ReplaceFile(dir *os.File, name string, data []byte, mode uint32) error {
	return replaceFile(dir, name, data, mode, func(*os.File) error { return nil })
}

// PlaceFile is WriteFile for file systems that write metadata changes in order: the
// data is on its blocks, and durable once a later change there is synced.
func PlaceFile(dir *os.File, name string, data []byte, mode uint32) error {
	return replaceFile(dir, name, data, mode, func(f *os.File) error { return WaitWritten(int(f.Fd())) })
}

// StartWriting lets the kernel begin to write the data of an open file.
func StartWriting(fd int) error { return syncRange(fd, unix.SYNC_FILE_RANGE_WRITE) }

// WaitWritten returns when all data of an open file is on its blocks. Neither its size
// nor where the blocks are is durable then, nor is a device's cache flushed: that takes
// syncing a change that comes later, and a file system that writes changes in order. See
// sync_file_range(2).
func WaitWritten(fd int) error {
	return syncRange(fd, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}

func syncRange(fd, flags int) error {
	for {
		err := unix.SyncFileRange(fd, 0, 0, flags)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func replaceFile(dir *os.File, name string, data []byte, mode uint32, sync func(*os.File) error) error {
	dirfd := int(dir.Fd())
	tmp := name + ".tmp"
	fd, err := unix.Openat(dirfd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return fmt.Errorf("create %s: %w", tmp, err)
	}
	f := os.NewFile(uintptr(fd), tmp)
	if err := writeSyncClose(f, data, sync); err != nil {
		return errors.Join(err, unix.Unlinkat(dirfd, tmp, 0))
	}
	if err := unix.Renameat(dirfd, tmp, dirfd, name); err != nil {
		return errors.Join(fmt.Errorf("rename %s: %w", tmp, err), unix.Unlinkat(dirfd, tmp, 0))
	}
	return nil
}

func writeSyncClose(f *os.File, data []byte, sync func(*os.File) error) error {
	_, err := f.Write(data)
	if err == nil {
		err = sync(f)
	}
	return errors.Join(err, f.Close())
}
