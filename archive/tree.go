// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"container/list"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// tree knows the directories that a layer has made. The directory it extracts
// into is private and was empty, so what is not known here is not there, and no
// look-up is needed to find out. Files are not known: the kernel refuses to make
// one where something is, and only then it is looked at.
type tree struct {
	root *node
	dirs map[string]*node // by path; the root is ""
	lru  *list.List       // nodes with a descriptor, the last used first
}

// node is a directory of the layer.
type node struct {
	path   string
	parent *node
	// Children are a list through them: they are only gone through when n is
	// removed.
	child, next, prev *node

	fd   int           // -1: not open at the moment
	used *list.Element // in tree.lru

	entry    *entry // nil: implicit, no entry of its own
	asked    bool   // was implicit when something went into it
	opaque   bool
	fresh    bool // made anew over something that this layer removed
	marked   bool // has the origin mark
	whiteout bool // has had whiteouts
}

// maxOpenDirs bounds the descriptors that directories keep. Entries come directory
// by directory: twice as many would spare one in a hundred of those few that are
// opened again.
const maxOpenDirs = 128

func newTree(root *os.File) *tree {
	t := &tree{dirs: map[string]*node{}, lru: list.New()}
	t.root = &node{fd: int(root.Fd())}
	t.dirs[""] = t.root
	return t
}

// hidden says whether nothing of the layers below shows in n.
func (n *node) hidden() bool {
	for ; n != nil; n = n.parent {
		if n.opaque || n.fresh {
			return true
		}
	}
	return false
}

// opaqueAbove says whether a directory that path is in, or was in before it was
// removed, hides what the layers below have.
func (t *tree) opaqueAbove(path string) bool {
	for path != "" {
		path, _ = splitLast(path)
		if n := t.dirs[path]; n != nil && n.opaque {
			return true
		}
	}
	return false
}

// open returns n's descriptor, which stays valid until the next call.
func (t *tree) open(n *node) (int, error) {
	if n == t.root {
		return n.fd, nil
	}
	if n.fd >= 0 {
		t.lru.MoveToFront(n.used)
		return n.fd, nil
	}
	fd, err := openBeneath(t.root.fd, n.path)
	if err != nil {
		return -1, fmt.Errorf("open directory %s: %w", quote(n.path), err)
	}
	return fd, t.keep(n, fd)
}

// keep remembers n's descriptor, and closes the one that was not used for the
// longest time if there are too many.
func (t *tree) keep(n *node, fd int) error {
	n.fd, n.used = fd, t.lru.PushFront(n)
	if t.lru.Len() <= maxOpenDirs {
		return nil
	}
	return t.shut(t.lru.Back().Value.(*node)) //nolint:errcheck,forcetypeassert // the list holds nothing else
}

func (t *tree) shut(n *node) error {
	if n.fd < 0 || n == t.root {
		return nil
	}
	t.lru.Remove(n.used)
	fd := n.fd
	n.fd, n.used = -1, nil
	return unix.Close(fd)
}

// close gives all descriptors back but the root's.
func (t *tree) close() (err error) {
	for _, n := range t.dirs {
		err = errors.Join(err, t.shut(n))
	}
	return err
}

// forget drops n and all below it: they were removed.
func (t *tree) forget(n *node) error {
	switch {
	case n.prev != nil:
		n.prev.next = n.next
	case n.parent != nil:
		n.parent.child = n.next
	}
	if n.next != nil {
		n.next.prev = n.prev
	}
	var err error
	n.walk(func(d *node) {
		err = errors.Join(err, t.shut(d))
		delete(t.dirs, d.path)
	})
	return err
}

// walk calls fn for n and all below it. It does not recurse: trees can be deep.
func (n *node) walk(fn func(*node)) {
	for todo := []*node{n}; len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for c := d.child; c != nil; c = c.next {
			todo = append(todo, c)
		}
		fn(d)
	}
}

// add opens the directory base in parent that was just made.
func (t *tree) add(parent *node, path, base string) (*node, error) {
	fd, err := unix.Openat(parent.fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", quote(path), err)
	}
	n := &node{path: path, parent: parent, next: parent.child}
	if n.next != nil {
		n.next.prev = n
	}
	parent.child = n
	t.dirs[path] = n
	return n, t.keep(n, fd)
}

// longestOpen keeps the path of one openat2 call below PATH_MAX.
const longestOpen = 4000

// openBeneath opens a directory without following a link or leaving rootfd.
func openBeneath(rootfd int, rel string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	at := rootfd
	for {
		part, rest := rel, ""
		if len(rel) > longestOpen {
			i := strings.LastIndexByte(rel[:longestOpen], '/')
			part, rest = rel[:i], rel[i+1:]
		}
		fd, err := unix.Openat2(at, part, &how)
		for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			fd, err = unix.Openat2(at, part, &how)
		}
		if at != rootfd {
			err = errors.Join(err, unix.Close(at))
		}
		if err != nil || rest == "" {
			return fd, err
		}
		at, rel = fd, rest
	}
}
