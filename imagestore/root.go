// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
)

const (
	lockName     = "lock"
	versionName  = "version"
	databaseName = "images.db"
	contentName  = "content"
	storeName    = "store"
)

// format is the content of ROOT/version. It changes when an older program would
// misread what this one writes.
const format = "strata image store 1\n"

// openRoot opens the root's directory, which it creates. The mode of a new one is 0755,
// as of other programs' stores: what is in it is closed where it has to be.
func openRoot(path string) (*os.File, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("create the image store: %w (%w)", err, errdefs.ErrFailedPrecondition)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the image store %s: %w (%w)", path, err, errdefs.ErrFailedPrecondition)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// checkVersion refuses a root of another format before anything in it is read, and a
// directory that holds something else before anything in it is written.
func checkVersion(root *os.File) error {
	found, err := os.ReadFile(filepath.Join(root.Name(), versionName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newVersion(root)
	case err != nil:
		return fmt.Errorf("read the format of the image store: %w (%w)", err, errdefs.ErrFailedPrecondition)
	case !bytes.Equal(found, []byte(format)):
		return fmt.Errorf("image store %s has format %.80q, this program knows %q: use the program that wrote it, or another root: %w",
			root.Name(), found, format, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// newVersion marks a root that is empty but for the lock.
func newVersion(root *os.File) error {
	entries, err := os.ReadDir(root.Name())
	if err != nil {
		return fmt.Errorf("read the image store: %w", err)
	}
	for _, e := range entries {
		if e.Name() != lockName && e.Name() != "lost+found" && e.Name() != versionName+".tmp" {
			return fmt.Errorf("%s is no image store and is not empty (%s), choose another root: %w", root.Name(), e.Name(), errdefs.ErrFailedPrecondition)
		}
	}
	if err := durable.WriteFile(root, versionName, []byte(format), 0o644); err != nil {
		return fmt.Errorf("image store %s: %w", root.Name(), err)
	}
	return root.Sync()
}

// makeContent creates the content store's directory. Images can hold secrets of whoever
// pulled them, so it is open for the root's group, if there is one, and for nobody else.
func makeContent(root *os.File) error {
	err := unix.Mkdirat(int(root.Fd()), contentName, 0o700)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("create %s: %w", filepath.Join(root.Name(), contentName), err)
	}
	return nil
}

// giveToGroup lets the members of a group list the root and read its content. The
// sticky bit keeps them from replacing what is in it. It comes last when a root is
// opened: everything that is opened by name is there by then.
func giveToGroup(root *os.File, group string) error {
	if group == "" {
		return nil
	}
	gid, err := lookupGroup(group)
	if err != nil {
		return err
	}
	fd := int(root.Fd())
	// chown(2) clears set-id bits, so the modes come second.
	err = errors.Join(unix.Fchown(fd, -1, gid), unix.Fchownat(fd, contentName, -1, gid, unix.AT_SYMLINK_NOFOLLOW))
	if err == nil {
		err = errors.Join(unix.Fchmod(fd, 0o1775), unix.Fchmodat(fd, contentName, 0o750, 0))
	}
	if err != nil {
		return fmt.Errorf("give image store %s to group %q: %w (%w)", root.Name(), group, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// lookupGroup finds a group by its name or, where no name matches, its number.
func lookupGroup(group string) (int, error) {
	digits := group
	if found, err := user.LookupGroup(group); err == nil {
		digits = found.Gid
	} else if !errors.As(err, new(user.UnknownGroupError)) {
		return 0, fmt.Errorf("look up group %q: %w: %w", group, err, errdefs.ErrUnknown)
	}
	gid, err := strconv.ParseUint(digits, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("group %q does not exist, create it or give its number: %w", group, errdefs.ErrInvalidArgument)
	}
	return int(gid), nil
}
