// SPDX-License-Identifier: Apache-2.0

package layertest

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// ErrRefused is what the reference applier returns for a layer that must be
// refused.
var ErrRefused = errors.New("must be refused")

// Model is the reference: layers applied one after another to one tree, in
// memory, as the OCI image-spec's layer.md says it. It is written to be
// obviously right, not to be fast or safe. Where the text leaves something open
// it does what overlay can show:
//
//   - a directory's entry replaces its extended attributes, and does not add to
//     those of the layers below;
//   - an opaque marker hides what the layers below have, wherever in the layer's
//     tar it is, and nothing of its own layer;
//   - an implicit directory is 0755 0:0, also in a set-group-id directory;
//   - a hard link to a file of a lower layer takes the file along: other names
//     that lower layers gave it stay what they were.
type Model struct {
	root  *inode
	layer int
	dirs  map[string]*inode // that this layer has entries for, by the entries' names
	hides map[string]bool   // directories with an opaque marker in this layer, by name
	// Notes are the places where a naive extraction to one directory would have
	// come to another result.
	Notes []string
	// Open says that the text does not say what this image is: a layer has an
	// opaque marker after entries in its directory, and leads through links, or
	// links to files of lower layers, so that the order of its entries matters.
	Open    bool
	early   int // the last layer in which an opaque marker was applied early
	through int // the last layer that led through a link, or linked to a lower layer
}

// inode is a file. The layer that made it, and the last one that had an entry of
// it, count from 1.
type inode struct {
	node
	made, named int
	changed     bool // names were added or removed in this layer
	children    map[string]*name
}

// name is a directory's entry for a file. touched is the last layer that had an
// entry for it or for something below it.
type name struct {
	*inode
	touched int
}

// NewModel returns an empty root directory.
func NewModel() *Model {
	return &Model{root: &inode{node: implicit(), children: map[string]*name{}}}
}

func implicit() node { return node{kind: TypeDir, mode: 0o755, mtime: Now} }

// Truth is the state after all layers of an image, or why it must be refused.
func Truth(layers []Layer) (*Model, error) {
	m := NewModel()
	for i, layer := range layers {
		m.Begin(layer)
		for _, e := range layer {
			if err := m.Apply(e); err != nil {
				return m, fmt.Errorf("layer %d: %q: %w", i, e.Name, err)
			}
		}
		m.End()
	}
	return m, nil
}

// Begin starts the next layer. Its entries, as far as they are known yet, tell
// which directories have an opaque marker somewhere.
func (m *Model) Begin(entries Layer) {
	m.layer++
	m.dirs = map[string]*inode{}
	m.hides = map[string]bool{}
	for _, e := range entries {
		if dir, base := path.Split(path.Clean("/" + e.Name)); base == ".wh..wh..opq" {
			m.hides[path.Clean(dir)] = true
		}
	}
}

// End finishes the layer: a directory that changed and has no entry in it keeps
// its time where overlay merges it, and gets a new one where it was written to.
func (m *Model) End() {
	m.root.end(m.layer)
	for p, made := range m.dirs {
		if now, err := m.walk(p, false); err != nil || now != made {
			m.note("a directory that is another one at the end of its layer: %s", p)
		}
	}
}

func (in *inode) end(layer int) {
	if in.changed && in.named != layer && !strings.HasSuffix(in.mtime, Now) {
		in.mtime += "|" + Now
	}
	in.changed = false
	for _, child := range in.children {
		child.end(layer)
	}
}

// Apply applies one entry.
func (m *Model) Apply(e Entry) error {
	clean := path.Clean("/" + e.Name)
	if clean == "/" {
		return nil
	}
	dir, base := path.Split(clean)
	if reserved(clean) {
		return nil
	}
	if base == ".wh..wh..opq" {
		delete(m.hides, path.Clean(dir)) // here it is
	}
	parent, err := m.walk(dir, true)
	if err != nil {
		return err
	}
	parent.changed = true
	switch {
	case base == ".wh..wh..opq":
		m.opaque(parent)
		return nil
	case strings.HasPrefix(base, ".wh."):
		target := strings.TrimPrefix(base, ".wh.")
		if target == "" || target == "." || target == ".." {
			return ErrRefused
		}
		delete(parent.children, target)
		return nil
	}
	return m.put(parent, base, e)
}

// reserved tells whether a path is one of aufs' own, which no image means.
func reserved(clean string) bool {
	for part := range strings.SplitSeq(clean, "/") {
		if strings.HasPrefix(part, ".wh..wh.") && part != ".wh..wh..opq" {
			return true
		}
	}
	return false
}

func (m *Model) put(parent *inode, base string, e Entry) error {
	old := parent.children[base]
	if e.Type == TypeDir && old != nil && old.kind == TypeDir {
		if len(old.xattrs) > 0 {
			m.note("directory attributes replaced: %s", e.Name)
		}
		old.xattrs = nil
		old.touched = m.layer
		old.set(e, m.layer)
		m.dirs[path.Clean("/"+e.Name)] = old.inode
		return nil
	}
	delete(parent.children, base)
	if e.Type == TypeHardlink {
		return m.link(parent, base, e)
	}
	in := &inode{node: node{kind: e.Type, data: e.Data, major: e.Major, minor: e.Minor}, made: m.layer}
	switch e.Type {
	case TypeDir:
		in.children = map[string]*name{}
		m.dirs[path.Clean("/"+e.Name)] = in
	case TypeSymlink:
		in.data = e.Link
	}
	in.set(e, m.layer)
	parent.children[base] = &name{inode: in, touched: m.layer}
	return nil
}

func (m *Model) link(parent *inode, base string, e Entry) error {
	clean := path.Clean("/" + e.Link)
	dir, targetBase := path.Split(clean)
	from, err := m.walk(dir, false)
	if err != nil {
		m.lead()
		return err
	}
	target := from.children[targetBase]
	if target == nil || target.kind == TypeDir {
		m.lead()
		return ErrRefused
	}
	if target.made < m.layer {
		m.note("link to a lower layer: %s", e.Name)
		m.lead()
		up := *target.inode
		up.xattrs = maps.Clone(up.xattrs)
		up.made = m.layer
		target.inode = &up
	}
	target.set(e, m.layer)
	parent.children[base] = &name{inode: target.inode, touched: m.layer}
	return nil
}

// set gives the file what an entry's header says.
func (in *inode) set(e Entry, layer int) {
	in.named = layer
	in.uid, in.gid = e.UID, e.GID
	in.mode = uint32(e.Mode)
	if in.kind == TypeSymlink {
		in.mode = 0o777
	}
	in.mtime = fmt.Sprint(e.Mtime)
	if e.Nsec != 0 {
		in.mtime = fmt.Sprintf("%d.%09d", e.Mtime, e.Nsec)
	}
	for k, v := range e.Xattrs {
		if in.xattrs == nil {
			in.xattrs = map[string][]byte{}
		}
		in.xattrs[k] = v
	}
}

// opaque removes what this layer has no part in. What it has a part in without
// an entry of its own is as new: that it was there before is hidden, too.
func (m *Model) opaque(dir *inode) {
	for base, child := range dir.children {
		if child.touched != m.layer {
			delete(dir.children, base)
			dir.changed = true
			continue
		}
		if child.kind != TypeDir {
			continue
		}
		if child.named != m.layer {
			m.note("implicit directory under a later opaque marker")
			child.node = implicit()
		}
		m.opaque(child.inode)
	}
}

func (m *Model) note(format string, args ...any) {
	m.Notes = append(m.Notes, fmt.Sprintf(format, args...))
}

// maxLinks is more than any test nests and less than a loop takes.
const maxLinks = 100

// walk finds a directory, following links below the root. With create, missing
// ones are made and those on the way are of this layer, too.
func (m *Model) walk(dir string, create bool) (*inode, error) {
	stack := []*name{{inode: m.root}}
	todo := strings.Split(dir, "/")
	lexical := "/"
	for links := 0; len(todo) > 0; {
		at := stack[len(stack)-1]
		if create {
			m.hideEarly(at.inode, lexical)
		}
		part := todo[0]
		todo = todo[1:]
		lexical = path.Join(lexical, part)
		switch part {
		case "", ".":
			continue
		case "..":
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		next := at.children[part]
		switch {
		case next == nil && !create:
			return nil, ErrRefused
		case next == nil:
			next = &name{inode: &inode{node: implicit(), made: m.layer, children: map[string]*name{}}, touched: m.layer}
			at.children[part] = next
			at.changed = true
			if at.mode&0o2000 != 0 {
				m.note("implicit directory in a set-group-id directory")
			}
			fallthrough
		case next.kind == TypeDir:
			stack = append(stack, next)
		case next.kind == TypeSymlink:
			m.lead()
			if links++; links > maxLinks {
				return nil, ErrRefused
			}
			if path.IsAbs(next.data) {
				stack = stack[:1]
			}
			todo = append(strings.Split(next.data, "/"), todo...)
			lexical = "" // no name of the tar leads here
		default:
			return nil, ErrRefused
		}
	}
	at := stack[len(stack)-1]
	if create {
		m.hideEarly(at.inode, lexical)
		for _, dir := range stack { // not what a link led away from
			dir.touched = m.layer
		}
	}
	return at.inode, nil
}

// hideEarly applies the opaque marker of a directory before the first entry in
// it, if it comes later in this layer's tar.
func (m *Model) hideEarly(dir *inode, name string) {
	if m.hides[name] {
		m.note("an entry before an opaque marker: %s", name)
		delete(m.hides, name)
		m.early = m.layer
		m.Open = m.Open || m.through == m.layer
		m.opaque(dir)
	}
}

// lead notes that the order of this layer's entries matters.
func (m *Model) lead() {
	m.through = m.layer
	m.Open = m.Open || m.early == m.layer
}

// Refuses tells whether Apply would refuse the entry.
func (m *Model) Refuses(e Entry) bool {
	return m.clone().Apply(e) != nil
}

// clone copies the tree, with files that are linked staying linked.
func (m *Model) clone() *Model {
	seen := map[*inode]*inode{}
	return &Model{root: m.root.clone(seen), layer: m.layer, dirs: map[string]*inode{}, hides: maps.Clone(m.hides)}
}

func (in *inode) clone(seen map[*inode]*inode) *inode {
	if c := seen[in]; c != nil {
		return c
	}
	c := *in
	c.xattrs = maps.Clone(in.xattrs)
	if in.children != nil {
		c.children = make(map[string]*name, len(in.children))
		for k, v := range in.children {
			c.children[k] = &name{inode: v.clone(seen), touched: v.touched}
		}
	}
	seen[in] = &c
	return &c
}

// Tree is what the layers so far make.
func (m *Model) Tree() Tree {
	nodes := map[string]*inode{}
	groups := map[*inode][]string{}
	m.root.flatten("/", nodes)
	for p, in := range nodes {
		if in.kind == TypeFile {
			groups[in] = append(groups[in], p)
		}
	}
	tree := make(Tree, len(nodes))
	for p, in := range nodes {
		tree[p] = in.line(slices.Clone(groups[in]))
	}
	return tree
}

func (in *inode) flatten(p string, into map[string]*inode) {
	into[p] = in
	for base, child := range in.children {
		child.flatten(path.Join(p, base), into)
	}
}
