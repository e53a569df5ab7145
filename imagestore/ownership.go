// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/snapshotter"
)

// OwnershipOf says how the store at root, or the snapshotter whose root that is, keeps
// the owners of files: one of the values of config.Snapshotter.Ownership, and empty if
// there is no store yet. It needs no lock.
//
// ErrFailedPrecondition: root, or what says so in it, can't be read.
func OwnershipOf(root string) (string, error) {
	made, err := snapshotter.OwnershipOf(filepath.Join(root, storeName))
	if err == nil || !errdefs.IsNotFound(err) {
		return string(made), err
	}
	if made, err = snapshotter.OwnershipOf(root); err == nil && made == snapshotter.OwnershipReal {
		return "", nil // that is what any directory is
	}
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	return string(made), err
}
