// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// mkfs makes file systems whose kernel threads have nothing left to initialise
// while something is measured. ext4 has a journal: without, the kernel passes over
// recently deleted inodes one by one, and every run after a removal is slow.
var mkfs = map[string][]string{
	"ext4": {"mkfs.ext4", "-q", "-F", "-O", "has_journal", "-E", "lazy_itable_init=0,lazy_journal_init=0"},
	"xfs":  {"mkfs.xfs", "-q", "-f"},
}

// filesystem is a fresh one in a sparse file.
type filesystem struct {
	image string
	dir   string // where it is mounted
	empty uint64 // inodes in use when nothing is unpacked
}

func newFilesystem(ctx context.Context, o options, base string) (_ *filesystem, err error) {
	f := &filesystem{image: base + ".img", dir: base}
	if err := os.Mkdir(f.dir, 0o755); err != nil {
		return nil, err
	}
	if err := sparse(f.image, int64(o.sizeGB)<<30); err != nil {
		return nil, err
	}
	args := mkfs[o.fstype]
	cmd := exec.CommandContext(ctx, args[0], append(args[1:len(args):len(args)], f.image)...)
	// Zeroes are written for real: a journal of unwritten extents in the image would make
	// each of its commits one of the host's journal, too.
	cmd.Env = append(os.Environ(), "UNIX_IO_NOZEROOUT=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", args[0], err, out)
	}
	m := mount.Mount{Type: o.fstype, Source: f.image, Options: []string{"loop"}}
	if err := m.Mount(f.dir); err != nil {
		return nil, fmt.Errorf("mounting a fresh %s: %w", o.fstype, err)
	}
	return f, nil
}

func sparse(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Truncate(size)
}

// close unmounts it, by force if something is still in it, and deletes the image.
func (f *filesystem) close() error {
	err := mount.UnmountAll(f.dir, 0)
	if err != nil {
		err = errors.Join(err, mount.UnmountAll(f.dir, unix.MNT_DETACH))
	}
	return errors.Join(err, os.Remove(f.image))
}

// flush writes everything of this file system and of the file it lies in, and
// nothing of others', so that no run pays for the writes of the one before.
func (f *filesystem) flush() error {
	if err := with(f.dir, unix.Syncfs); err != nil {
		return fmt.Errorf("flushing %s: %w", f.dir, err)
	}
	return with(f.image, unix.Fsync)
}

func with(path string, do func(fd int) error) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return do(int(f.Fd()))
}

// inodes is how many are in use.
func (f *filesystem) inodes() (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		return 0, err
	}
	return st.Files - st.Ffree, nil
}

// waitEmpty waits until what was unpacked is gone: a side that removes in the
// background would otherwise do it during the other's run, and one that kept
// layers would have less to do in the next.
func (f *filesystem) waitEmpty(ctx context.Context) error {
	const slack = 64 // of daemons' own files
	for end := time.Now().Add(2 * time.Minute); ; {
		n, err := f.inodes()
		if err != nil {
			return err
		}
		if n <= f.empty+slack {
			return nil
		}
		if time.Now().After(end) {
			left := n - f.empty
			f.empty = n // the next scenario is not to blame
			return fmt.Errorf("%s: %d inodes are left of removed snapshots", f.dir, left)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
