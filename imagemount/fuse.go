// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"errors"
	"fmt"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// fuseType is the type of fuse-overlayfs' mounts in a mount table.
const fuseType = "fuse.fuse-overlayfs"

// UnmountFuse detaches the mounts of fuse-overlayfs in this mount namespace. It is for the
// end of a namespace of one's own: fuse-overlayfs lives in it, and would keep it, and the
// mounts, for ever. Mounts from before the namespace can't be undone in it and stay.
func UnmountFuse() error {
	infos, err := mountinfo.GetMounts(mountinfo.FSTypeFilter(fuseType))
	if err != nil {
		return fmt.Errorf("read the mount table: %w", err)
	}
	var errs []error
	for i := len(infos) - 1; i >= 0; i-- {
		err := unix.Unmount(infos[i].Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", infos[i].Mountpoint, err))
		}
	}
	return errors.Join(errs...)
}
