// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Ballast takes the space of a small file system of the test's own, see LoopFS.
type Ballast struct {
	t    testing.TB
	dir  string
	path string
}

// NewBallast returns a ballast that takes nothing yet. The file system has nothing
// reserved for root (mkfs.ext4 -m 0), or root would not notice that it is full.
func NewBallast(t testing.TB, dir string) *Ballast {
	t.Helper()
	return &Ballast{t: t, dir: dir, path: filepath.Join(dir, "ballast")}
}

// Leave fills the file system until at most so many bytes are free.
func (b *Ballast) Leave(free int64) {
	b.t.Helper()
	b.Drop()
	f, err := os.OpenFile(b.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			b.t.Error(err)
		}
	}()
	end := int64(0)
	for size := int64(1 << 30); size >= 512; {
		if size > b.free()-free {
			size /= 2
			continue
		}
		switch err := unix.Fallocate(int(f.Fd()), 0, end, size); {
		case err == nil:
			end += size
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		case !errors.Is(err, unix.EINTR):
			b.t.Fatal(err)
		}
	}
}

// LeaveInodes makes files until at most so many more can be made.
func (b *Ballast) LeaveInodes(free uint64) {
	b.t.Helper()
	dir := filepath.Join(b.dir, "ballast")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.t.Fatal(err)
	}
	for b.stat().Ffree > free {
		f, err := os.CreateTemp(dir, "")
		if err != nil {
			b.t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.t.Fatal(err)
		}
	}
}

// Drop gives everything back.
func (b *Ballast) Drop() {
	b.t.Helper()
	if err := os.RemoveAll(b.path); err != nil {
		b.t.Fatal(err)
	}
	b.settle()
}

func (b *Ballast) free() int64 {
	st := b.stat()
	return int64(st.Bavail) * st.Bsize
}

// stat is exact only after settle: what was deleted is free with the next commit of the
// journal.
func (b *Ballast) stat() (st unix.Statfs_t) {
	b.t.Helper()
	if err := unix.Statfs(b.dir, &st); err != nil {
		b.t.Fatal(err)
	}
	return st
}

func (b *Ballast) settle() {
	b.t.Helper()
	f, err := os.Open(b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := errors.Join(unix.Syncfs(int(f.Fd())), f.Close()); err != nil {
		b.t.Fatal(err)
	}
}
