// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// capabilityXattr is lost when the owner of a file changes, see capabilities(7).
const capabilityXattr = "security.capability"

// chownTree gives every file below root, and root, to the ids of the host that
// ids maps its owner to. The tree is mounted privately and nobody else changes
// it, so an os.Root, which never leaves it, is all the care it takes.
//
// ErrInvalidArgument: a file's owner is not mapped.
func chownTree(ctx context.Context, path string, ids overlayutil.IDMap) (err error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	c := chowner{root: root, ids: ids, linked: map[uint64]owner{}}
	return fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		return c.chown(name)
	})
}

type owner struct{ uid, gid uint32 }

type chowner struct {
	root *os.Root
	ids  overlayutil.IDMap
	// linked holds the owner that files with several names had when the first
	// name came along. Copying up tears names apart unless the overlay has an
	// index, so whether a further name needs it has to be seen.
	linked map[uint64]owner
}

func (c *chowner) chown(name string) error {
	fi, err := c.root.Lstat(name)
	if err != nil {
		return err
	}
	st, err := statOf(fi)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if st.Nlink > 1 && !fi.IsDir() {
		first, again := c.linked[st.Ino]
		if again && first != (owner{st.Uid, st.Gid}) {
			return nil
		}
		c.linked[st.Ino] = owner{st.Uid, st.Gid}
	}
	uid, gid, err := c.ids.Host(st.Uid, st.Gid)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if uid == st.Uid && gid == st.Gid {
		return nil
	}
	if !fi.Mode().IsRegular() {
		return c.root.Lchown(name, int(uid), int(gid))
	}
	return c.chownFile(name, fi.Mode(), int(uid), int(gid))
}

// chownFile puts back what the kernel takes from a file that changes its owner:
// setuid, setgid and capabilities.
func (c *chowner) chownFile(name string, mode fs.FileMode, uid, gid int) (err error) {
	f, err := c.root.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	caps, err := readCapability(f)
	if err != nil {
		return fmt.Errorf("%s: read %s: %w", name, capabilityXattr, err)
	}
	if err := f.Chown(uid, gid); err != nil {
		return err
	}
	if mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		if err := f.Chmod(mode); err != nil {
			return err
		}
	}
	if caps == nil {
		return nil
	}
	return unix.Fsetxattr(int(f.Fd()), capabilityXattr, caps, 0)
}

// maxCapability is over the size of any version of the attribute.
const maxCapability = 64

func readCapability(f *os.File) ([]byte, error) {
	b := make([]byte, maxCapability)
	n, err := unix.Fgetxattr(int(f.Fd()), capabilityXattr, b)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

func statOf(fi fs.FileInfo) (*syscall.Stat_t, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("no stat_t in %T", fi.Sys())
	}
	return st, nil
}
