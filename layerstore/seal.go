// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Content is what a walk over a snapshot's directory found.
type Content struct {
	Bytes  int64 // on disk: holes not, hard links once
	Inodes int64 // the directory itself included
	// Empty: no entries, and a root that looks like any other. Such a layer
	// adds nothing to a stack.
	Empty bool
	// OpaqueRoot and DiffID are what whoever extracted the layer found out; a walk
	// does not.
	OpaqueRoot bool
	DiffID     digest.Digest
}

// maxFilesToSync is up to how many files a layer is synced file by file. Above
// it one syncfs is cheaper; below it, there is no reason to make a layer of a
// few files wait for all that other processes have written.
const maxFilesToSync = 128

// Seal measures the directory of active snapshot n and, unless the store is
// volatile, makes all that is in it survive a power cut. It takes time in
// proportion to the number of entries and belongs in no transaction.
func (s *Store) Seal(ctx context.Context, n uint64) (c Content, err error) {
	defer func() { err = s.rootError(err) }()
	dir, err := openDir(int(s.snapshots.Fd()), name(n)+"/"+fsName)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	var files fileList
	c, err = measure(ctx, dir, files.add)
	if err != nil {
		return c, err
	}
	attrs, err := readAttrs(dir)
	if err != nil {
		return c, err
	}
	c.Empty = c.Empty && attrs.IsDefault()
	return c, s.sync(func() error { return files.sync(dir, s.inOrder) })
}

// Measure measures the directory of active snapshot n as it is at the moment:
// containers may be writing to it.
func (s *Store) Measure(ctx context.Context, n uint64) (c Content, err error) {
	defer func() { err = s.rootError(err) }()
	dir, err := openDir(int(s.snapshots.Fd()), name(n)+"/"+fsName)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return measure(ctx, dir, func(string) {})
}

// fileList remembers the regular files of a tree until there are too many.
type fileList struct {
	paths []string
	many  bool
}

func (l *fileList) add(rel string) {
	if len(l.paths) == maxFilesToSync {
		l.many = true
		l.paths = nil
	}
	if !l.many {
		l.paths = append(l.paths, rel)
	}
}

// sync makes the tree below dir durable. On file systems that write metadata
// changes in order it is enough to sync the data of each file: what is synced
// after them (layer.json, the directory it is renamed to) takes directories,
// links and attributes along. Nothing of the kind is promised elsewhere.
func (l *fileList) sync(dir *os.File, inOrder bool) error {
	if l.many || !inOrder {
		return unix.Syncfs(int(dir.Fd()))
	}
	// Side by side: a journal takes those that come at the same time in one
	// commit, and would need one for each that comes after another.
	var g errgroup.Group
	g.SetLimit(maxSyncs)
	for _, rel := range l.paths {
		g.Go(func() error {
			// What was removed since it was seen needs no syncing.
			if err := syncFile(dir, rel); err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

// maxSyncs is how many files are synced at a time. Each takes a thread.
const maxSyncs = 32

// writesInOrder says whether the file system of dir keeps one journal of
// metadata changes, so that syncing a change makes all earlier ones durable: xfs
// does, and ext4 unless it was made without a journal.
func writesInOrder(dir *os.File) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return false
	}
	return fs.Type == unix.XFS_SUPER_MAGIC || (fs.Type == unix.EXT4_SUPER_MAGIC && hasJournal(dir))
}

// hasJournal asks sysfs, where an ext4 without a journal has the journal_task
// "<none>". No answer counts as no.
func hasJournal(dir *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return false
	}
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return false
	}
	task, err := os.ReadFile("/sys/fs/ext4/" + path.Base(device) + "/journal_task")
	if err != nil {
		return false
	}
	_, err = strconv.Atoi(strings.TrimSpace(string(task)))
	return err == nil
}

func syncFile(root *os.File, rel string) (err error) {
	parent, base, err := openParent(root, rel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	fd, err := retry(func() (int, error) {
		return unix.Openat(int(parent.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return &os.PathError{Op: "open", Path: rel, Err: err}
	}
	return errors.Join(unix.Fsync(fd), unix.Close(fd))
}
