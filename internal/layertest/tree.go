// SPDX-License-Identifier: Apache-2.0

package layertest

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Tree is every path of a directory, from "/" on, and what is there in one line:
//
//	file["data"] 0644 0:0 mtime=1000000000 x{user.k="v"} link{/f,/g}
//
// A modification time may be NOW: set while applying.
type Tree map[string]string

// Now stands for a modification time that was not given by an entry.
const Now = "NOW"

// node is what a line of a Tree says.
type node struct {
	kind     string // file, dir, symlink, char, block, fifo
	data     string // of a file; the target of a symlink
	mode     uint32
	uid, gid int
	major    int64
	minor    int64
	mtime    string
	xattrs   map[string][]byte
}

func (n *node) line(links []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %04o %d:%d mtime=%s", n.what(), n.mode, n.uid, n.gid, n.mtime)
	if len(n.xattrs) > 0 {
		list := make([]string, 0, len(n.xattrs))
		for _, k := range slices.Sorted(maps.Keys(n.xattrs)) {
			list = append(list, fmt.Sprintf("%s=%q", k, n.xattrs[k]))
		}
		fmt.Fprintf(&b, " x{%s}", strings.Join(list, ","))
	}
	if len(links) > 1 {
		slices.Sort(links)
		fmt.Fprintf(&b, " link{%s}", strings.Join(links, ","))
	}
	return b.String()
}

func (n *node) what() string {
	switch n.kind {
	case TypeFile:
		if len(n.data) > 256 {
			return fmt.Sprintf("file[%d bytes, %x]", len(n.data), sha256.Sum256([]byte(n.data)))
		}
		return fmt.Sprintf("file[%q]", n.data)
	case TypeSymlink:
		return "symlink->" + n.data
	case TypeChar, TypeBlock:
		return fmt.Sprintf("%s %d:%d", n.kind, n.major, n.minor)
	}
	return n.kind
}

// Diff returns what is different, a line for each path, sorted. A wanted
// modification time NOW takes any; "T|NOW" takes T, or NOW.
func (want Tree) Diff(got Tree) []string {
	var diffs []string
	for p, w := range want {
		g, ok := got[p]
		if !ok {
			g = "(absent)"
		}
		if !sameLine(w, g) {
			diffs = append(diffs, fmt.Sprintf("%s: want %s | got %s", p, w, g))
		}
	}
	for p, g := range got {
		if _, ok := want[p]; !ok {
			diffs = append(diffs, fmt.Sprintf("%s: want (absent) | got %s", p, g))
		}
	}
	slices.Sort(diffs)
	return diffs
}

func sameLine(want, got string) bool {
	wantHead, wantTime, wantTail := cutTime(want)
	gotHead, gotTime, gotTail := cutTime(got)
	if wantHead != gotHead || wantTail != gotTail {
		return false
	}
	return wantTime == Now || slices.Contains(strings.Split(wantTime, "|"), gotTime)
}

// cutTime finds the time of a line. File contents are quoted and come first, so
// the last mtime= before the attributes is the right one in what tests write.
func cutTime(line string) (head, mtime, tail string) {
	head, rest, _ := strings.Cut(line, " mtime=")
	mtime, tail, _ = strings.Cut(rest, " ")
	return head, mtime, tail
}

// Touch lets paths have any modification time.
func (want Tree) Touch(paths ...string) {
	for _, p := range paths {
		if line, ok := want[p]; ok {
			head, _, tail := cutTime(line)
			if tail != "" {
				tail = " " + tail
			}
			want[p] = head + " mtime=" + Now + tail
		}
	}
}
