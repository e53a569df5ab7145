// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/user"
	"strconv"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// noGroup stands for "no group may use the socket"; chown(2) reads the same
// number as "leave the group alone".
const noGroup = -1

// access says who may use the socket: root, the daemon's own user, and the
// members of one group.
type access struct {
	euid uint32
	gid  int
}

// newAccess resolves the configured group, a name or a number; a group whose
// name is a number is found by its name first.
func newAccess(group string) (access, error) {
	a := access{euid: uint32(os.Geteuid()), gid: noGroup}
	if group == "" {
		return a, nil
	}
	digits := group
	if found, err := user.LookupGroup(group); err == nil {
		digits = found.Gid
	} else if !errors.As(err, new(user.UnknownGroupError)) {
		return a, fmt.Errorf("look up group %q: %w: %w", group, err, errdefs.ErrUnknown)
	}
	gid, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || gid == math.MaxUint32 {
		return a, fmt.Errorf("group %q does not exist, create it or give its number: %w", group, errdefs.ErrInvalidArgument)
	}
	a.gid = int(gid)
	return a, nil
}

// dirMode is the mode of a directory made for the socket: a group's members
// may pass through it but not list or change it.
func (a access) dirMode() uint32 {
	if a.gid == noGroup {
		return 0o700
	}
	return 0o710
}

// socketMode is the mode of the socket; connecting needs the write bit.
func (a access) socketMode() uint32 {
	if a.gid == noGroup {
		return 0o600
	}
	return 0o660
}

// apply sets group and mode of the file behind fd, which may be an O_PATH
// descriptor. The mode is set explicitly because the one given at creation
// has lost whatever bits the umask names.
func (a access) apply(fd int, mode uint32) error {
	if a.gid != noGroup {
		if err := unix.Fchownat(fd, "", -1, a.gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("change group to %d: %w", a.gid, err)
		}
	}
	// fchmod(2) refuses O_PATH descriptors; their name in /proc does not.
	if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode); err != nil {
		return fmt.Errorf("change mode to %#o: %w", mode, err)
	}
	return nil
}
