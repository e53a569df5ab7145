// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// bind is a directory that is ready to be mounted somewhere, read-only: a mount
// that has no place yet, or, before Linux 5.12, the directory itself.
type bind struct {
	tree *os.File
	dir  *os.File
}

// newBind makes a mount of dir. It is private at first, so that nothing that is
// mounted in the store comes along, and takes part in the propagation of the
// place it is attached to.
func newBind(dir *os.File, mapIDs bool) (*bind, error) {
	tree, err := cloneMount(dir, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE})
	if errors.Is(err, unix.ENOSYS) && !mapIDs {
		return &bind{dir: dir}, nil
	}
	if err != nil {
		return nil, notBound(err)
	}
	b := &bind{tree: tree}
	if mapIDs {
		if err := checkIDMap(dir); err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	return b, nil
}

func notBound(err error) error {
	return fmt.Errorf("its directory can't be bound here, which takes CAP_SYS_ADMIN in the mount namespace of containerd: %w (%w)", err, errdefs.ErrFailedPrecondition)
}

// cloneMount makes a mount of dir that has no place, with the attributes given.
func cloneMount(dir *os.File, attr unix.MountAttr) (*os.File, error) {
	fd, err := unix.OpenTree(int(dir.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("open_tree: %w", err)
	}
	tree := os.NewFile(uintptr(fd), dir.Name())
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		return nil, errors.Join(fmt.Errorf("mount_setattr: %w", err), tree.Close())
	}
	return tree, nil
}

// checkIDMap tries to map the ids of a mount of dir as containerd does it.
func checkIDMap(dir *os.File) (err error) {
	const mapping = "0:1:1"
	userns, err := mount.GetUsernsFD(mapping, mapping)
	if err != nil {
		return fmt.Errorf("make a user namespace: %w", err)
	}
	defer func() { err = errors.Join(err, userns.Close()) }()
	tree, err := cloneMount(dir, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY, Userns_fd: uint64(userns.Fd())})
	if err != nil {
		return fmt.Errorf("its file system can't map ids, so no container could have mapped ids any more; set idmapped_mounts = \"off\" if none needs them: %w (%w)", err, errdefs.ErrFailedPrecondition)
	}
	return tree.Close()
}

// attach mounts it on base, a directory in dir.
func (b *bind) attach(dir *os.File, base string) error {
	if b.tree == nil {
		return attachOld(b.dir, dir, base)
	}
	if err := unix.MoveMount(int(b.tree.Fd()), "", int(dir.Fd()), base, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return notBound(fmt.Errorf("move_mount: %w", err))
	}
	return nil
}

// close gives up a mount that was not attached; one that was stays.
func (b *bind) close() error {
	if b.tree == nil {
		return nil
	}
	return b.tree.Close()
}

// attachOld does with mount(2) what attach does.
func attachOld(source, dir *os.File, base string) error {
	target := procPath(dir, base)
	if err := unix.Mount(procPath(source, ""), target, "", unix.MS_BIND, ""); err != nil {
		return notBound(fmt.Errorf("mount: %w", err))
	}
	err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|keptFlags(target), "")
	if err != nil {
		return errors.Join(notBound(fmt.Errorf("remount: %w", err)), unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
	}
	return nil
}

// keptFlags are those of the mount that a user namespace may not take away.
func keptFlags(target string) uintptr {
	var st unix.Statfs_t
	if unix.Statfs(target, &st) != nil {
		return 0
	}
	const flags = unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME
	return uintptr(st.Flags) & flags // the constants of statfs(2) are those of mount(2)
}

// procPath names base in the open directory for calls that take a path. The link
// in it leads to the very directory.
func procPath(dir *os.File, base string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + base
}

// detach takes away what is mounted on base. Mounts that were made over it, of
// running containers, have it for as long as they need it.
func detach(dir *os.File, base string) error {
	for {
		mounted, _, err := mountedAt(dir, base)
		if errors.Is(err, unix.ENOENT) || err == nil && !mounted {
			return nil
		}
		// In other cases the file system below does not answer any more.
		err = unix.Unmount(procPath(dir, base), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) {
			return nil // not a mount point, then
		}
		if err != nil {
			return fmt.Errorf("unmount %s/%s: %w", dir.Name(), base, err)
		}
	}
}

// mountedAt says whether something is mounted on rel below dir, and whether what
// is there was deleted where it came from.
func mountedAt(dir *os.File, rel string) (mounted, deleted bool, err error) {
	var st unix.Statx_t
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if err := unix.Statx(int(dir.Fd()), rel, flags, unix.STATX_NLINK, &st); err != nil {
		return false, false, err
	}
	deleted = st.Nlink == 0
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, deleted, nil
	}
	fd, err := unix.Openat(int(dir.Fd()), rel, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, false, err
	}
	same, err := sameMount(int(dir.Fd()), fd)
	return !same, deleted, errors.Join(err, unix.Close(fd))
}
