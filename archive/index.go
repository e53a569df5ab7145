// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/strata-snapshotter/strata/layerindex"
	"golang.org/x/sys/unix"
)

// indexer records what Apply leaves on the disk, from what it has in its hands: that
// takes no system call for an entry that is like most. What the kernel may have made
// something else of is read back. A nil indexer records nothing.
type indexer struct {
	w          *layerindex.Writer
	exact      atomic.Bool // the file system was seen to keep single nanoseconds
	describers sync.Pool

	// linked is where files with several names were first, by inode number, and amended
	// which of those got other metadata with a further name.
	linked  map[uint64]string
	amended map[string]struct{}
	// lost: the records are not what is on the disk any more.
	lost bool
}

// maxLinked bounds the files with several names that are remembered.
const maxLinked = 8192

// newIndexer returns nil where nobody asks for an index, and where owners and modes are
// kept in attributes: there nearly everything on the disk is something else than in the
// tar, and some entries are in no tar. Their index is better built of the directory.
func newIndexer(opts Options) *indexer {
	if opts.Index == nil || opts.OverrideStat {
		return nil
	}
	return &indexer{
		w: opts.Index, linked: map[uint64]string{}, amended: map[string]struct{}{},
	}
}

func typeOf(e *entry) layerindex.Type {
	switch e.typ {
	case typeDir:
		return layerindex.Dir
	case typeSymlink:
		return layerindex.Symlink
	case typeChar:
		return layerindex.Char
	case typeBlock:
		return layerindex.Block
	case typeFifo:
		return layerindex.Fifo
	}
	return layerindex.Regular
}

// recordOf is what stands on the disk after e was extracted to path, unless isOdd.
func recordOf(path string, e *entry) layerindex.Record {
	r := layerindex.Record{Path: path, Type: typeOf(e), Mode: e.mode, UID: e.uid, GID: e.gid, Sec: e.mtime.sec, Nsec: e.mtime.nsec}
	switch r.Type {
	case layerindex.Symlink:
		r.Link, r.Mode = e.link, 0o777 // links have no other, see symlink(7)
	case layerindex.Char, layerindex.Block:
		r.Major, r.Minor = e.major, e.minor
	case layerindex.Regular:
		r.Size = e.size
	default:
	}
	return r
}

// isOdd says whether only the disk knows what became of e: attributes can be left out,
// and an access control list changes the mode; file systems cut times off.
func (x *indexer) isOdd(e *entry) bool {
	return len(e.xattrs) > 0 || e.mtime.sec < 0 || e.mtime.sec > 1<<31-1 || (e.mtime.nsec != 0 && !x.exact.Load())
}

// read describes what is at path by fn.
func (x *indexer) read(path string, fn func(*layerindex.Describer, *layerindex.Record) (unix.Stat_t, error)) (*layerindex.Record, error) {
	d, ok := x.describers.Get().(*layerindex.Describer)
	if !ok {
		d = &layerindex.Describer{}
	}
	defer x.describers.Put(d)
	r := &layerindex.Record{Path: path}
	if _, err := fn(d, r); err != nil {
		return nil, fmt.Errorf("read back %s: %w", quote(path), err)
	}
	return r, nil
}

func (x *indexer) readOpen(path string, fd int) (*layerindex.Record, error) {
	return x.read(path, func(d *layerindex.Describer, r *layerindex.Record) (unix.Stat_t, error) { return d.Open(fd, r) })
}

func (x *indexer) readAt(path string, dirfd int, base string) (*layerindex.Record, error) {
	return x.read(path, func(d *layerindex.Describer, r *layerindex.Record) (unix.Stat_t, error) { return d.At(dirfd, base, r) })
}

// learn notes that a time came back as it was set, to the nanosecond.
func (x *indexer) learn(e *entry, r *layerindex.Record) {
	if e.mtime.nsec%10 != 0 && r.Nsec == e.mtime.nsec {
		x.exact.Store(true)
	}
}

// file records a file that is complete. It is called by the writers.
func (x *indexer) file(f *outFile) error {
	if !x.isOdd(f.entry) {
		r := recordOf(f.path, f.entry)
		r.Sum, r.Sparse = f.sum, f.entry.segments != nil
		return x.w.Add(&r)
	}
	r, err := x.readOpen(f.path, f.fd)
	if err != nil {
		return err
	}
	x.learn(f.entry, r)
	r.Sum, r.Sparse = f.sum, f.entry.segments != nil
	return x.w.Add(r)
}

// node records what is neither a file nor a directory.
func (x *indexer) node(dirfd int, l place, e *entry) error {
	if x == nil {
		return nil
	}
	if !x.isOdd(e) {
		r := recordOf(l.path, e)
		return x.w.Add(&r)
	}
	r, err := x.readAt(l.path, dirfd, l.base)
	if err != nil {
		return err
	}
	return x.w.Add(r)
}

func (x *indexer) whiteout(path string) error {
	if x == nil {
		return nil
	}
	return x.w.Add(&layerindex.Record{Path: path, Type: layerindex.Whiteout})
}

// link records that path is one more name of the file target, which has the inode number.
func (x *indexer) link(path, target string, inode uint64) error {
	if x == nil {
		return nil
	}
	if _, seen := x.linked[inode]; !seen && len(x.linked) < maxLinked {
		x.linked[inode] = target // has no further names yet, so it is the first
	}
	return x.w.Add(&layerindex.Record{Path: path, Type: layerindex.Link, Link: target})
}

// amend notes that the file with the inode number got other metadata.
func (x *indexer) amend(inode uint64) {
	if x == nil {
		return
	}
	first, known := x.linked[inode]
	if !known {
		x.lost = true
		return
	}
	x.amended[first] = struct{}{}
}

// directory records a directory once nothing changes in it any more. st is what it was
// before the metadata of its entry was set.
func (x *indexer) directory(n *node, fd int, st *unix.Stat_t) error {
	if x == nil {
		return nil
	}
	if marked := n.opaque || n.fresh || n.marked; marked || n.parent == nil || (n.entry != nil && x.isOdd(n.entry)) {
		r, err := x.readOpen(n.path, fd)
		if err != nil {
			return err
		}
		return x.w.Add(r)
	}
	if n.entry == nil {
		return x.w.Add(&layerindex.Record{
			Path: n.path, Type: layerindex.Dir, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec,
		})
	}
	r := recordOf(n.path, n.entry)
	return x.w.Add(&r)
}

// finish ends the index, and says whether it holds what is on the disk.
func (x *indexer) finish(t *tree) (bool, error) {
	if x == nil || x.lost {
		return false, nil
	}
	for _, path := range slices.Sorted(maps.Keys(x.amended)) {
		dir, base := splitLast(path)
		n := t.dirs[dir]
		if n == nil {
			return false, nil
		}
		fd, err := t.open(n)
		if err != nil {
			return false, err
		}
		r, err := x.readAt(path, fd, base)
		if err != nil {
			return false, err
		}
		if err := x.w.Amend(r); err != nil {
			return false, err
		}
	}
	err := x.w.Finish()
	return err == nil, err
}
