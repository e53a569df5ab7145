// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/step"
)

// blockSize is the unit of st_blocks, see stat(2).
const blockSize = 512

// readBatch is how many names of a directory are read at a time, so that a
// directory with millions of them does not need memory for all.
const readBatch = 1024

type inode struct{ dev, ino uint64 }

// measure counts what the tree below root takes and calls file for each regular
// file. It holds one directory open at a time, however deep the tree is, and
// follows nothing. What disappears under its eyes is not counted.
func measure(ctx context.Context, root *os.File, file func(rel string)) (Content, error) {
	defer step.Enter(ctx, step.Walk)()
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return Content{}, err
	}
	m := &measuring{file: file, linked: map[inode]struct{}{}, todo: []string{"."}}
	m.count(&st)
	for len(m.todo) > 0 {
		rel := m.todo[len(m.todo)-1]
		m.todo = m.todo[:len(m.todo)-1]
		if err := m.directory(ctx, root, rel); err != nil {
			return Content{}, err
		}
	}
	m.content.Empty = m.content.Inodes == 1
	return m.content, nil
}

type measuring struct {
	content Content
	file    func(rel string)
	linked  map[inode]struct{} // files with several names that were counted
	todo    []string           // directories to be read
}

func (m *measuring) count(st *unix.Stat_t) {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if _, seen := m.linked[key]; seen {
			return
		}
		m.linked[key] = struct{}{}
	}
	m.content.Inodes++
	m.content.Bytes += st.Blocks * blockSize
}

func (m *measuring) directory(ctx context.Context, root *os.File, rel string) (err error) {
	dir, err := openBeneath(root, rel)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // removed or replaced meanwhile
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		names, err := dir.Readdirnames(readBatch)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, base := range names {
			if err := m.entry(dir, rel, base); err != nil {
				return err
			}
		}
	}
}

func (m *measuring) entry(dir *os.File, rel, base string) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: path.Join(rel, base), Err: err}
	}
	m.count(&st)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		m.todo = append(m.todo, path.Join(rel, base))
	case unix.S_IFREG:
		m.file(path.Join(rel, base))
	}
	return nil
}

// openParent opens the directory that rel is in.
func openParent(root *os.File, rel string) (parent *os.File, base string, err error) {
	dir, base := path.Split(rel)
	parent, err = openBeneath(root, path.Clean("./"+dir))
	return parent, base, err
}
