// SPDX-License-Identifier: Apache-2.0

package layertest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// recent is a time, in seconds, that no entry of a test has and every clock is
// past: what is newer was set while applying.
const recent = 1_600_000_000

// Dump returns the tree of a directory. Only regular files are shown as linked:
// whether two symlinks are one inode cannot matter to anybody.
func Dump(root string) (Tree, error) {
	nodes := map[string]*node{}
	groups := map[[2]uint64][]string{}
	inodes := map[string][2]uint64{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n, id, err := stat(path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		rel := "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
		nodes[rel] = n
		if n.kind == TypeFile {
			groups[id] = append(groups[id], rel)
			inodes[rel] = id
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	tree := make(Tree, len(nodes))
	for rel, n := range nodes {
		tree[rel] = n.line(groups[inodes[rel]])
	}
	return tree, nil
}

func stat(path string) (n *node, inode [2]uint64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, inode, err
	}
	n = &node{mode: st.Mode & 0o7777, uid: int(st.Uid), gid: int(st.Gid), mtime: mtimeText(st.Mtim)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.kind = TypeDir
	case unix.S_IFLNK:
		n.kind = TypeSymlink
		n.data, err = os.Readlink(path)
	case unix.S_IFREG:
		n.kind = TypeFile
		n.data, err = readFile(path)
	case unix.S_IFCHR:
		n.kind = TypeChar
	case unix.S_IFBLK:
		n.kind = TypeBlock
	case unix.S_IFIFO:
		n.kind = TypeFifo
	default:
		n.kind = fmt.Sprintf("type %o", st.Mode&unix.S_IFMT)
	}
	n.major, n.minor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	if err != nil {
		return nil, inode, err
	}
	n.xattrs, err = Xattrs(path)
	return n, [2]uint64{st.Dev, st.Ino}, err
}

func readFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	return string(data), err
}

func mtimeText(ts unix.Timespec) string {
	switch {
	case ts.Sec > recent:
		return Now
	case ts.Nsec != 0:
		return fmt.Sprintf("%d.%09d", ts.Sec, ts.Nsec)
	}
	return fmt.Sprint(ts.Sec)
}

// Xattrs returns the extended attributes of a file that is not followed if it is
// a symbolic link. security.selinux is left out: the host's policy sets it.
func Xattrs(path string) (map[string][]byte, error) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	xattrs := map[string][]byte{}
	for name := range bytes.SplitSeq(list[:n], []byte{0}) {
		if len(name) == 0 || string(name) == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		size, err := unix.Lgetxattr(path, string(name), value)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", name, err)
		}
		xattrs[string(name)] = value[:size]
	}
	return xattrs, nil
}
