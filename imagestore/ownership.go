// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/layerstore"
)

// OwnershipOf says how the store at root, or the snapshotter whose root that is, keeps
// the owners of files: one of the values of config.Snapshotter.Ownership, and empty if
// there is no store yet. It needs no lock.
//
// ErrFailedPrecondition: root, or what says so in it, can't be read.
func OwnershipOf(root string) (string, error) {
	noted, err := layerstore.OwnershipOf(filepath.Join(root, storeName))
	if err == nil && noted == "" {
		return config.OwnershipReal, nil
	}
	if errdefs.IsNotFound(err) {
		if noted, err = layerstore.OwnershipOf(root); errdefs.IsNotFound(err) {
			return "", nil
		}
	}
	return noted, err
}
