// SPDX-License-Identifier: Apache-2.0

package layertest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// overrideForm is the one form that the attribute may have: decimal, decimal, octal
// with at least four digits and no type bits, and a type.
var overrideForm = regexp.MustCompile(`^([0-9]+):([0-9]+):([0-7]{4}):(file|dir|pipe|(block|char)-([0-9]+)-([0-9]+))$`)

const (
	overrideAttr    = "user.containers.override_stat"
	whiteoutAttr    = "user.overlay.whiteout"
	opaqueAttr      = "user.overlay.opaque"
	originAttr      = "user.overlay.origin"
	whiteoutPrefix  = ".wh."
	containersAttrs = "user.containers."
)

// DumpOverride returns the tree that layers, top first, show to who reads owner, mode
// and type from user.containers.override_stat and whiteouts from attributes. It fails
// if a file is not as that form demands: a file or directory without the attribute, a
// whiteout that the kernel or fuse-overlayfs would not see, a file of somebody else or
// one that its owner can't read.
//
// A symbolic link can't have the attribute: it has the owner "-".
func DumpOverride(layers ...string) (Tree, error) {
	d := overrideDump{nodes: map[string]*node{}, groups: map[[2]uint64][]string{}, inodes: map[string][2]uint64{}}
	if err := d.directory("/", layers); err != nil {
		return nil, err
	}
	tree := make(Tree, len(d.nodes))
	for rel, n := range d.nodes {
		line := n.line(d.groups[d.inodes[rel]])
		if n.kind == TypeSymlink {
			line = WithoutOwner(line)
		}
		tree[rel] = line
	}
	return tree, nil
}

var ownerForm = regexp.MustCompile(` [0-9]+:[0-9]+ mtime=`)

// WithoutOwner is the line of a symbolic link whose owner nobody knows.
func WithoutOwner(line string) string { return ownerForm.ReplaceAllString(line, " - mtime=") }

// UnknownOwners takes the owners of symbolic links out of a tree.
func (want Tree) UnknownOwners() Tree {
	out := maps.Clone(want)
	for p, line := range out {
		if strings.HasPrefix(line, "symlink->") {
			out[p] = WithoutOwner(line)
		}
	}
	return out
}

type overrideDump struct {
	nodes  map[string]*node
	groups map[[2]uint64][]string
	inodes map[string][2]uint64
}

// directory takes in what a directory shows that is merged of dirs, top first.
func (d *overrideDump) directory(rel string, dirs []string) error {
	if err := d.add(rel, dirs[0]); err != nil {
		return err
	}
	hidden := map[string]bool{}
	for i, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := e.Name()
			if strings.HasPrefix(name, whiteoutPrefix) || hidden[name] {
				continue
			}
			hidden[name] = true
			white, err := checkWhiteout(dir, name)
			if err != nil {
				return err
			}
			if white {
				continue
			}
			if err := d.child(filepath.Join(rel, name), dirs[i:], name, e.IsDir()); err != nil {
				return err
			}
		}
		if err := checkMarkers(dir, entries); err != nil {
			return err
		}
	}
	return nil
}

// child takes in what the first of dirs has of a name.
func (d *overrideDump) child(rel string, dirs []string, name string, isDir bool) error {
	path := filepath.Join(dirs[0], name)
	if !isDir {
		return d.add(rel, path)
	}
	merged := []string{path}
	for i, dir := range dirs {
		at := filepath.Join(dir, name)
		if i > 0 {
			st, err := os.Lstat(at)
			if os.IsNotExist(err) {
				continue
			}
			if err != nil || !st.IsDir() {
				break
			}
			merged = append(merged, at)
		}
		xattrs, err := Xattrs(at)
		if err != nil {
			return err
		}
		if string(xattrs[opaqueAttr]) == "y" {
			break
		}
	}
	return d.directory(rel, merged)
}

// checkWhiteout tells whether a name is deleted. Both halves of a whiteout must be
// there, and marks on the directory.
func checkWhiteout(dir, name string) (bool, error) {
	xattrs, err := Xattrs(filepath.Join(dir, name))
	if err != nil {
		return false, err
	}
	if _, ok := xattrs[whiteoutAttr]; !ok {
		return false, nil
	}
	companion, err := Xattrs(filepath.Join(dir, whiteoutPrefix+name))
	if err != nil {
		return false, fmt.Errorf("the second half of a whiteout: %w", err)
	}
	marks, err := Xattrs(dir)
	if err != nil {
		return false, err
	}
	_, marked := companion[whiteoutAttr]
	_, origin := marks[originAttr]
	if !marked || !origin || string(marks[opaqueAttr]) != "x" {
		return false, fmt.Errorf("%s/%s: a whiteout without its marks: %q %q", dir, name, companion, marks)
	}
	return true, nil
}

// checkMarkers wants a whiteout beside every second half of one.
func checkMarkers(dir string, entries []os.DirEntry) error {
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), whiteoutPrefix)
		if !ok {
			continue
		}
		if white, err := checkWhiteout(dir, name); err != nil || !white {
			return fmt.Errorf("%s/%s belongs to no whiteout (%w)", dir, e.Name(), err)
		}
	}
	return nil
}

func (d *overrideDump) add(rel, path string) error {
	n, id, err := stat(path)
	if err != nil {
		return err
	}
	if err := checkOnDisk(path, n); err != nil {
		return err
	}
	d.nodes[rel] = n
	if n.kind == TypeSymlink {
		return nil
	}
	if err := n.override(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if n.kind == TypeFile {
		d.groups[id] = append(d.groups[id], rel)
		d.inodes[rel] = id
	}
	return nil
}

// checkOnDisk wants a file to be the caller's own, and such that its attributes can be
// read.
func checkOnDisk(path string, n *node) error {
	if n.uid != os.Geteuid() {
		return fmt.Errorf("%s belongs to %d, not to %d", path, n.uid, os.Geteuid())
	}
	need := map[string]uint32{TypeDir: 0o700, TypeFile: 0o600, TypeSymlink: 0}
	want, ok := need[n.kind]
	if !ok || n.mode&want != want || n.mode&0o7000 != 0 {
		return fmt.Errorf("%s is a %s with mode %04o", path, n.kind, n.mode)
	}
	return nil
}

// override reads what the attribute says.
func (n *node) override() error {
	value, ok := n.xattrs[overrideAttr]
	found := overrideForm.FindStringSubmatch(string(value))
	if !ok || found == nil {
		return fmt.Errorf("%s is %q", overrideAttr, value)
	}
	number := func(i int) int64 { v, _ := strconv.ParseInt(found[i], 10, 64); return v }
	mode, err := strconv.ParseUint(found[3], 8, 32)
	if err != nil {
		return err
	}
	n.uid, n.gid, n.mode = int(number(1)), int(number(2)), uint32(mode)
	kinds := map[string]string{"pipe": TypeFifo, "block": TypeBlock, "char": TypeChar}
	kind, device, _ := strings.Cut(found[4], "-")
	if (kind == "dir") != (n.kind == TypeDir) {
		return fmt.Errorf("%s says %s of a %s", overrideAttr, kind, n.kind)
	}
	if special := kinds[kind]; special != "" {
		if n.data != "" {
			return fmt.Errorf("a %s with content", kind)
		}
		n.kind = special
	}
	if device != "" {
		n.major, n.minor = number(6), number(7)
	}
	for _, name := range slices.Collect(maps.Keys(n.xattrs)) {
		rest, stored := strings.CutPrefix(name, containersAttrs)
		if stored && strings.HasPrefix(rest, "security.") {
			n.xattrs[rest] = n.xattrs[name]
		}
		if stored || strings.HasPrefix(name, "user.overlay.") {
			delete(n.xattrs, name)
		}
	}
	return nil
}

// Disk is how many inodes a layer's directory has on disk, and 512-byte blocks.
func Disk(dir string) (inodes, blocks int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if err == nil && !seen[st.Ino] {
			seen[st.Ino] = true
			inodes, blocks = inodes+1, blocks+st.Blocks
		}
		return err
	})
	return inodes, blocks, err
}
