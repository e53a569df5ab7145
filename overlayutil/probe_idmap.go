// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// The probe shows a file of root's as one of this id. In a user namespace that
// does not have it the answer is No, and rightly: nothing could be mapped to it.
const probeHostID = 1

// ProbeIDMap tells whether an overlay over an id-mapped lower directory in dir
// shows the mapped owners. Overlay knows id-mapped layers since Linux 5.19, the
// file system below must support them too.
func ProbeIDMap(dir string) Finding {
	return probe(dir, idMapWorks)
}

func idMapWorks(s *scratch) (err error) {
	dirs, err := s.dirs("lower", "empty")
	if err != nil {
		return err
	}
	if err := s.file("lower", "f"); err != nil {
		return err
	}
	if err := unix.Fchownat(int(dirs[0].Fd()), "f", 0, 0, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("give a file to root: %w", err)
	}
	tree, err := idMappedTree(dirs[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	v, release, err := s.mountOver(trial{lowers: []*os.File{tree, dirs[1]}}, tree)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close(), release()) }()
	return v.mustOwn("f")
}

// idMappedTree returns a detached mount of the directory in which root's ids are
// shown as probeHostID.
func idMappedTree(dir *os.File) (tree *os.File, err error) {
	mapping := fmt.Sprintf("0:%d:1", probeHostID)
	userns, err := mount.GetUsernsFD(mapping, mapping)
	if errors.Is(err, unix.ENOSPC) { // how clone(2) says that user.max_user_namespaces is reached
		return nil, refuse("cannot make a user namespace: %v: see sysctl user.max_user_namespaces", err)
	}
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	defer func() { err = errors.Join(err, userns.Close()) }()
	fd, err := unix.OpenTree(int(dir.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	tree = os.NewFile(uintptr(fd), "idmapped")
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY, Userns_fd: uint64(userns.Fd())}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, errors.Join(fmt.Errorf("map the ids of a mount: %w", err), tree.Close())
	}
	return tree, nil
}

// mountOver mounts the trial over a detached tree. Before Linux 6.15 overlay
// takes no directory of a mount that is not attached anywhere (EINVAL); then the
// tree is attached in the scratch directory for as long as it takes.
func (s *scratch) mountOver(t trial, tree *os.File) (v view, release func() error, err error) {
	nothing := func() error { return nil }
	v, err = s.mount(t)
	if !errors.Is(err, unix.EINVAL) {
		return v, nothing, err
	}
	release, attachErr := s.attach(tree)
	if attachErr != nil {
		return view{}, nothing, errors.Join(err, attachErr)
	}
	v, err = s.mount(t)
	if err != nil {
		return view{}, nothing, errors.Join(err, release())
	}
	return v, release, nil
}

// attach gives the tree a place in the scratch directory.
func (s *scratch) attach(tree *os.File) (release func() error, err error) {
	target := filepath.Join(s.path, "idmapped")
	if err := os.Mkdir(target, 0o755); err != nil {
		return nil, err
	}
	if err := unix.MoveMount(int(tree.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return nil, fmt.Errorf("move_mount: %w", err)
	}
	return func() error { return unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) }, nil
}

// mustOwn refuses a view that does not show the mapped owner.
func (v view) mustOwn(name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(v.root, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Uid != probeHostID || st.Gid != probeHostID {
		return refuse("an overlay over an id-mapped directory shows the owner %d:%d instead of %d:%d",
			st.Uid, st.Gid, probeHostID, probeHostID)
	}
	return nil
}
