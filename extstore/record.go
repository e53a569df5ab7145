// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// none stands in the index for what an entry does not have.
const none = "-"

// record is a line of the index in two parts.
type record struct {
	rel     string
	meta    string // all but the content
	content string // digest in hexadecimal, or none
}

// fields names the columns of meta, as a warning would.
var fields = []string{"path", "type", "mode", "owner", "group", "size", "modification time", "device", "target", "link", "attributes"}

var kindNames = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "dir", unix.S_IFLNK: "symlink", unix.S_IFCHR: "char", unix.S_IFBLK: "block",
	unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket",
}

type inode struct{ dev, ino uint64 }

// recorder makes the records of a tree, in the order of walk.
type recorder struct {
	ns     overlayutil.XattrNamespace
	xattrs *xattrReader
	links  map[inode]string // first names of files that have several
}

func newRecorder(ns overlayutil.XattrNamespace) *recorder {
	return &recorder{ns: ns, xattrs: newXattrReader(), links: map[inode]string{}}
}

// record returns an entry's record without its content, and whether it has one:
// further names of a file don't.
func (r *recorder) record(e *entry) (rec record, hasContent bool, err error) {
	attrs, err := r.xattrs.read(e)
	if err != nil {
		return rec, false, err
	}
	if redirected(r.ns, attrs) {
		return rec, false, &damage{fmt.Errorf("%s has its content in the layers below, so the layer belongs to one chain", quote(e.rel))}
	}
	size, rdev, target, link := none, none, none, none
	switch e.kind() {
	case unix.S_IFREG:
		size = strconv.FormatInt(e.st.Size, 10)
	case unix.S_IFCHR, unix.S_IFBLK:
		rdev = fmt.Sprintf("%d:%d", unix.Major(e.st.Rdev), unix.Minor(e.st.Rdev))
	case unix.S_IFLNK:
		if target, err = e.readlink(); err != nil {
			return rec, false, err
		}
		target = quote(target)
	}
	if first, again := r.firstName(e); again {
		link = quote(first)
	}
	rec = record{rel: e.rel, content: none}
	rec.meta = fmt.Sprintf("%s %s %04o %d %d %s %d.%09d %s %s %s %s", quote(e.rel), kindNames[e.kind()], e.st.Mode&0o7777,
		e.st.Uid, e.st.Gid, size, e.st.Mtim.Sec, e.st.Mtim.Nsec, rdev, target, link, attributesText(attrs))
	return rec, e.kind() == unix.S_IFREG && link == none, nil
}

// firstName returns another name that the file came up under.
func (r *recorder) firstName(e *entry) (first string, again bool) {
	if !canBeLinked(e) {
		return "", false
	}
	key := inode{e.st.Dev, e.st.Ino}
	first, again = r.links[key]
	if !again {
		r.links[key] = e.rel
	}
	return first, again
}

// canBeLinked: the kernel makes one whiteout and many links to it, of which
// nobody can tell.
func canBeLinked(e *entry) bool {
	return e.kind() != unix.S_IFDIR && e.st.Nlink > 1 && !overlayutil.IsWhiteout(&e.st)
}

func attributesText(attrs []attribute) string {
	if len(attrs) == 0 {
		return none
	}
	list := make([]string, len(attrs))
	for i, a := range attrs {
		list[i] = quote(a.name) + "=" + quote(a.value)
	}
	return strings.Join(list, ",")
}

// quote writes a string so that it is told from every other one, without spaces
// and line ends.
func quote(s string) string {
	return strings.ReplaceAll(strconv.QuoteToASCII(s), " ", `\x20`)
}
