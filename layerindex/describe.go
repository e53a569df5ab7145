// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// Describer reads records off a disk. It keeps its memory for the next call, and is for
// one goroutine.
type Describer struct {
	list, value []byte
}

// xattrMax is the most that the names, or a value, can take: XATTR_LIST_MAX and
// XATTR_SIZE_MAX, see limits.h of the kernel.
const xattrMax = 64 << 10

// At makes r the record of base in the open directory dirfd, which is not followed. Path,
// Sparse and Sum are left for the caller. Hard links are described as what they are
// links to. Errors are those of the file system.
func (d *Describer) At(dirfd int, base string, r *Record) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirfd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, err
	}
	if d.fill(&st, r); r.Type == Whiteout {
		return st, nil
	}
	if r.Type == Symlink {
		if err := d.readLink(dirfd, base, r); err != nil {
			return st, err
		}
	}
	// A link below /proc/self/fd leads to the very directory; base is not followed.
	at := "/proc/self/fd/" + strconv.Itoa(dirfd) + "/" + base
	return st, d.xattrs(r,
		func(b []byte) (int, error) { return unix.Llistxattr(at, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(at, name, b) })
}

// Open is At for an open file.
func (d *Describer) Open(fd int, r *Record) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return st, err
	}
	d.fill(&st, r)
	return st, d.xattrs(r,
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) })
}

func (d *Describer) fill(st *unix.Stat_t, r *Record) {
	*r = Record{
		Path: r.Path, Type: typeOf(st), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec, Xattrs: r.Xattrs[:0],
	}
	switch r.Type {
	case Regular:
		r.Size = st.Size
	case Char, Block:
		r.Major, r.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	default:
	}
}

func typeOf(st *unix.Stat_t) Type {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return Regular
	case unix.S_IFDIR:
		return Dir
	case unix.S_IFLNK:
		return Symlink
	case unix.S_IFBLK:
		return Block
	case unix.S_IFIFO:
		return Fifo
	case unix.S_IFSOCK:
		return Socket
	}
	if st.Rdev == 0 {
		return Whiteout
	}
	return Char
}

func (d *Describer) readLink(dirfd int, base string, r *Record) error {
	buf := d.values()
	n, err := unix.Readlinkat(dirfd, base, buf)
	if err != nil {
		return err
	}
	r.Link = string(buf[:n])
	return nil
}

func (d *Describer) values() []byte {
	if d.value == nil {
		d.value = make([]byte, xattrMax)
	}
	return d.value
}

func (d *Describer) xattrs(r *Record, list func([]byte) (int, error), get func(string, []byte) (int, error)) error {
	if d.list == nil {
		d.list = make([]byte, xattrMax)
	}
	n, err := list(d.list)
	if errors.Is(err, unix.ENOTSUP) || n == 0 && err == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list its attributes: %w", err)
	}
	for name := range bytes.SplitSeq(d.list[:n], []byte{0}) {
		if !IsRecorded(string(name)) {
			continue
		}
		key := string(name)
		n, err := get(key, d.values())
		if err != nil {
			return fmt.Errorf("read its attribute %q: %w", key, err)
		}
		r.Xattrs = append(r.Xattrs, Xattr{Name: key, Size: n, Sum: xxhash.Sum64(d.value[:n])})
	}
	slices.SortFunc(r.Xattrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return nil
}
