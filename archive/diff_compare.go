// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"maps"

	"golang.org/x/sys/unix"
)

// unchanged tells whether an entry is in the parent as it is: overlay copies files
// up that are only opened for writing, and directories for what is in them.
// containerd's walking differ leaves such entries out (continuity, fs.Changes). It
// takes little for a change that it does not see (the time of a directory, an
// attribute, a content written in the same instant); here all that a layer carries
// counts.
func (d *differ) unchanged(e, content, base *diffEntry) (bool, error) {
	if !d.override && !sameStat(&e.st, &base.st) {
		return false, nil
	}
	if err := d.load(base); err != nil {
		return false, err
	}
	if !sameStat(&e.st, &base.st) || !maps.Equal(e.xattrs, base.xattrs) {
		return false, nil
	}
	switch e.kind() {
	case unix.S_IFREG:
		return d.sameContent(content, base, e.st.Size)
	case unix.S_IFLNK:
		return sameTarget(e, base)
	}
	return true, nil
}

func sameStat(a, b *unix.Stat_t) bool {
	if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Mtim != b.Mtim {
		return false
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return a.Size == b.Size
	case unix.S_IFCHR, unix.S_IFBLK:
		return a.Rdev == b.Rdev
	}
	return true
}

func sameTarget(a, b *diffEntry) (bool, error) {
	target, err := a.readlink()
	if err != nil {
		return false, err
	}
	other, err := b.readlink()
	return target == other, err
}

func (d *differ) sameContent(a, b *diffEntry, size int64) (bool, error) {
	half := len(d.out.chunk) / 2
	for offset := int64(0); offset < size; offset += int64(half) {
		if err := d.ctx.Err(); err != nil {
			return false, err
		}
		first, second := d.out.chunk[:half], d.out.chunk[half:]
		n, err := a.readAt(first, offset)
		if err != nil {
			return false, err
		}
		m, err := b.readAt(second, offset)
		if err != nil || !bytes.Equal(first[:n], second[:m]) {
			return false, err
		}
	}
	return true, nil
}
