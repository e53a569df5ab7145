// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/overlayutil"
)

// tempMountsDir is the directory in the root for mounts that last as long as a
// call: a layer is extracted onto those below it, two snapshots are compared.
const tempMountsDir = "tmpmounts"

// useTempMounts has containerd's mount code make such mounts below root, and takes
// away what a daemon that was killed has left there. In the system's temporary
// directory nobody could tell whose they are, and they would keep file systems
// busy until the next boot.
//
// The caller owns root, or it would take the mounts of another daemon away. There
// is one place for such mounts in a process, so only main sets it: a containerd
// with Strata in it has set its own.
//
// The error is FailedPrecondition: the directory can't be made. What can't be
// taken away is only logged, as it is in nobody's way.
func useTempMounts(ctx context.Context, root string) error {
	dir := filepath.Join(root, tempMountsDir)
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		return fmt.Errorf("directory for temporary mounts %s: %w: %w", dir, err, errdefs.ErrFailedPrecondition)
	}
	if overlayutil.NeedsEscape(real) {
		// Id-mapped layers are mounted there, too, and options name them.
		log.G(ctx).WithField("root", root).Warn("the path of the root has ':', ',' or '\\': temporary mounts are made in the system's temporary directory, where a crash leaves them")
		return nil
	}
	if err := mount.SetTempMountLocation(dir); err != nil {
		return fmt.Errorf("directory for temporary mounts %s: %w: %w", dir, err, errdefs.ErrFailedPrecondition)
	}
	// Detached, so that a shell that is in one of them does not keep it.
	warnings, err := mount.CleanupTempMounts(unix.MNT_DETACH | unix.UMOUNT_NOFOLLOW)
	err = errors.Join(append(warnings, err, removeMountPoints(dir))...)
	if err != nil {
		log.G(ctx).WithError(err).WithField("directory", dir).Warn("something of an earlier daemon's temporary mounts is left")
	}
	return nil
}

// removeMountPoints removes the directories in dir that nothing is mounted on any
// more. rmdir(2) takes neither a mount point nor a directory with something in it:
// nothing is lost if one is still a mount.
func removeMountPoints(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if rmErr := unix.Rmdir(name); rmErr != nil {
			err = errors.Join(err, fmt.Errorf("remove %s: %w", name, rmErr))
		}
	}
	return err
}
