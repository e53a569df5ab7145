// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
)

// maxFilesToSync is up to how many files a layer is synced file by file. Above
// it one syncfs is cheaper; below it, there is no reason to make a layer of a
// few files wait for all that other processes have written.
const maxFilesToSync = 512

// syncBatch is how many files are open for being written at a time.
const syncBatch = 64

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
// changes in order it is enough to have the data of each file on its blocks: what is
// synced after them (the directory that the layer is renamed to) takes sizes, blocks,
// directories, links and attributes along, and its flush of the device's cache the
// data. So a layer costs one commit of the journal, not one for each file. Nothing of
// the kind is promised elsewhere.
func (l *fileList) sync(dir *os.File, inOrder bool) error {
	if l.many || !inOrder {
		return unix.Syncfs(int(dir.Fd()))
	}
	for rest := l.paths; len(rest) > 0; {
		n := min(len(rest), syncBatch)
		if err := writeBack(dir, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// writeBack starts the writing of all the files before it waits for the first.
func writeBack(root *os.File, rels []string) (err error) {
	open := make(map[string]int, len(rels))
	defer func() {
		for _, fd := range open {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	for _, rel := range rels {
		fd, err := openFile(root, rel)
		if errors.Is(err, unix.ENOENT) {
			continue // what was removed since it was seen needs no syncing
		}
		if err != nil {
			return err
		}
		open[rel] = fd
		if err := durable.StartWriting(fd); err != nil {
			return &os.PathError{Op: "write back", Path: rel, Err: err}
		}
	}
	for rel, fd := range open {
		if err := durable.WaitWritten(fd); err != nil {
			return &os.PathError{Op: "write back", Path: rel, Err: err}
		}
	}
	return nil
}

func openFile(root *os.File, rel string) (fd int, err error) {
	parent, base, err := openParent(root, rel)
	if err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	fd, err = retry(func() (int, error) {
		return unix.Openat(int(parent.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: rel, Err: err}
	}
	return fd, nil
}

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
