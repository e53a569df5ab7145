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
