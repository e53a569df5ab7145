// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"slices"
	"strings"
)

// seen is a path that extracting onto a merged view has to do with: one that the
// layer has something at or below, and the way to it from the root.
//
// It is a tree and not a set of paths, because opaque markers and deletions ask
// for all that is below a path: going through every path of the layer for each of
// them would let a small layer cost the square of its entries.
type seen struct {
	parent   *seen
	name     string
	children map[string]*seen

	// made: this layer has it. An opaque marker spares it.
	made bool
	// clean: nothing in it comes from the layers below, so an opaque marker has
	// nothing to do there.
	clean bool
	// opaque: it is marked as hiding the directory of the layers below.
	opaque bool
	// timed is a directory that others than this layer made, and time what it had
	// before the layer changed something in it.
	timed bool
	time  stamp
	// entry is that of a directory, whose metadata comes last.
	entry *entry
}

// find returns the node of path, which has no links, or nil.
func (s *seen) find(path string) *seen {
	for path != "" && s != nil {
		var name string
		name, path, _ = strings.Cut(path, "/")
		s = s.children[name]
	}
	return s
}

// at is find, and makes what is missing.
func (s *seen) at(path string) *seen {
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		child := s.children[name]
		if child == nil {
			child = &seen{parent: s, name: name}
			if s.children == nil {
				s.children = map[string]*seen{}
			}
			s.children[name] = child
		}
		s = child
	}
	return s
}

// forget drops path and all below it, and the way there as far as nothing else
// needs it.
func (s *seen) forget(path string) {
	n := s.find(path)
	for n != nil && n.parent != nil {
		up := n.parent
		delete(up.children, n.name)
		if up.made || up.timed || len(up.children) > 0 {
			return
		}
		n = up
	}
}

// hides says whether nothing of the layers below is in s.
func (s *seen) hides() bool {
	for ; s != nil; s = s.parent {
		if s.clean {
			return true
		}
	}
	return false
}

// directory is a path with its node.
type directory struct {
	path string
	*seen
}

// directories lists the directories that something is left to do for, those below
// others first: what is done to one may show in the time of the one it is in. It
// does not recurse: trees can be deep.
func (s *seen) directories() []directory {
	var all []directory
	for todo := []directory{{"", s}}; len(todo) > 0; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if d.entry != nil || d.timed {
			all = append(all, d)
		}
		for name, child := range d.children {
			if len(child.children) > 0 || child.entry != nil || child.timed {
				todo = append(todo, directory{join(d.path, name), child})
			}
		}
	}
	slices.Reverse(all)
	return all
}
