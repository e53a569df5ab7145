// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Build writes the index of the tree below dir, which nobody changes meanwhile, and reads
// all files for it. w is finished by the caller. Links and mounts are not followed.
//
// Errors are those of the file system, and of w.
func Build(ctx context.Context, dir *os.File, w *Writer, pace Pace) (err error) {
	b := &builder{w: w, at: place{root: dir}, content: newContent(ctx, pace), linked: map[inode]string{}, todo: []string{""}}
	defer func() { err = errors.Join(err, b.at.close()) }()
	for len(b.todo) > 0 {
		path := b.todo[len(b.todo)-1]
		b.todo = b.todo[:len(b.todo)-1]
		if err := b.directory(path); err != nil {
			return fmt.Errorf("index of %q: %w", path, err)
		}
	}
	return nil
}

type inode struct{ dev, ino uint64 }

// maxLinked bounds the files with several names that are remembered. Names of others
// get records of their own, as if they were files of their own.
const maxLinked = 16384

type builder struct {
	w       *Writer
	at      place
	content *content
	d       Describer
	record  Record
	linked  map[inode]string // where a file with several names was first
	todo    []string
}

// readBatch is how many names of a directory are read at a time.
const readBatch = 1024

func (b *builder) directory(path string) (err error) {
	fd, err := b.at.open(path)
	if err != nil {
		return err
	}
	b.record.Path = path
	if _, err := b.d.Open(fd, &b.record); err != nil {
		return err
	}
	if err := b.w.Add(&b.record); err != nil {
		return err
	}
	names, err := openBeneath(b.at.dir, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, names.Close()) }()
	return eachName(names, func(base string) error { return b.entry(fd, path, base) })
}

// eachName calls fn for the names in dir, which is open for that alone.
func eachName(dir *os.File, fn func(base string) error) error {
	for {
		names, err := dir.Readdirnames(readBatch)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, base := range names {
			if err := fn(base); err != nil {
				return err
			}
		}
	}
}

func (b *builder) entry(dirfd int, path, base string) error {
	if err := b.content.wait(entryCost); err != nil {
		return err
	}
	r := &b.record
	r.Path = join(path, base)
	st, err := b.d.At(dirfd, base, r)
	if err != nil {
		return fmt.Errorf("%s: %w", base, err)
	}
	if r.Type == Dir {
		b.todo = append(b.todo, r.Path)
		return nil
	}
	if first, seen := b.link(&st, r.Path); seen && r.Type != Whiteout {
		return b.w.Add(&Record{Path: r.Path, Type: Link, Link: first})
	}
	if r.Type == Regular {
		r.Sparse = st.Blocks*512 < st.Size
		if r.Sum, err = b.content.file(dirfd, base, r.Size, r.Sparse); err != nil {
			return fmt.Errorf("%s: %w", base, err)
		}
	}
	return b.w.Add(r)
}

// link says where a file with several names was before.
func (b *builder) link(st *unix.Stat_t, path string) (first string, seen bool) {
	if st.Nlink < 2 {
		return "", false
	}
	key := inode{st.Dev, st.Ino}
	if first, seen = b.linked[key]; !seen && len(b.linked) < maxLinked {
		b.linked[key] = path
	}
	return first, seen
}
