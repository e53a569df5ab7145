// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// floorTree is a layer's tree in memory: regular files and directories, which are
// nearly all there is.
type floorTree struct {
	dirs  []string // every one after its parent
	files []floorFile
	size  int64 // of the tar stream's contents
}

type floorFile struct {
	dir  int // index of dirs
	base string
	mode uint32
	time unix.Timespec
	data []byte
}

func loadTree(l *layer) (_ *floorTree, err error) {
	r, err := l.open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	t := &floorTree{dirs: []string{"/"}}
	index := map[string]int{"/": 0}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, err
		}
		if err := t.add(tr, h, index); err != nil {
			return nil, err
		}
	}
}

func (t *floorTree) add(r io.Reader, h *tar.Header, index map[string]int) error {
	t.size += 512 + (h.Size+511)/512*512
	name := path.Join("/", h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		t.mkdir(name, index)
	case tar.TypeReg:
		data := make([]byte, h.Size)
		if _, err := io.ReadFull(r, data); err != nil {
			return err
		}
		t.files = append(t.files, floorFile{
			dir: t.mkdir(path.Dir(name), index), base: path.Base(name), mode: uint32(h.Mode) & 0o777,
			time: unix.NsecToTimespec(h.ModTime.UnixNano()), data: data,
		})
	}
	return nil
}

func (t *floorTree) mkdir(name string, index map[string]int) int {
	if i, ok := index[name]; ok {
		return i
	}
	t.mkdir(path.Dir(name), index)
	i := len(t.dirs)
	index[name] = i
	t.dirs = append(t.dirs, name)
	return i
}

// timeCreate makes the tree in a fresh directory with so many threads, then removes it.
func (t *floorTree) timeCreate(fs *filesystem, threads int) (_ time.Duration, err error) {
	root := filepath.Join(fs.dir, "tree")
	start := time.Now()
	fds, err := t.makeDirs(root)
	if err == nil {
		err = t.makeFiles(fds, threads)
	}
	wall := time.Since(start)
	for _, fd := range fds {
		err = errors.Join(err, unix.Close(fd))
	}
	return wall, errors.Join(err, os.RemoveAll(root), fs.flush())
}

func (t *floorTree) makeDirs(root string) (fds []int, err error) {
	for _, dir := range t.dirs {
		name := root + dir
		if err := unix.Mkdir(name, 0o755); err != nil {
			return fds, fmt.Errorf("%s: %w", dir, err)
		}
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fds, fmt.Errorf("%s: %w", dir, err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// makeFiles gives each thread the files of its own directories: in one directory, two
// would wait for each other.
func (t *floorTree) makeFiles(fds []int, threads int) error {
	var group errgroup.Group
	for i := range threads {
		group.Go(func() error {
			for _, f := range t.files {
				if f.dir%threads != i {
					continue
				}
				if err := f.make(fds[f.dir]); err != nil {
					return fmt.Errorf("%s: %w", f.base, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (f floorFile) make(dir int) (err error) {
	fd, err := unix.Openat(dir, f.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, f.mode)
	if errors.Is(err, unix.EEXIST) {
		return nil // a second entry of one name
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	for data := f.data; len(data) > 0; {
		n, err := unix.Write(fd, data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return unix.UtimesNanoAt(dir, f.base, []unix.Timespec{f.time, f.time}, 0)
}
