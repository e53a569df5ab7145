// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// ErrPatchGone says that a patch that was found is not in the store any more: the last
// snapshot that referred to it was removed. Whoever looks again finds another, or makes one.
var ErrPatchGone = fmt.Errorf("the patch was removed meanwhile: %w", errdefs.ErrUnavailable)

// NextPatch returns the next patch that some snapshot has on layer n, and the number of that
// snapshot, which is above after. Those that skip has are passed over. From one to the next
// all patches on a layer are found, in as many steps as snapshots refer to it.
//
// ErrNotFound: there is none.
func (tx *Tx) NextPatch(n, after uint64, skip map[uint64]bool) (patch Layer, at uint64, err error) {
	err = tx.secondsAfter(bucketRefs, n, after, func(s uint64) (bool, error) {
		r, err := tx.headOf(s)
		if err != nil || r.layer != n || r.patch == 0 || skip[r.patch] {
			return true, err
		}
		at = s
		patch, err = tx.GetLayer(r.patch)
		return false, err
	})
	if err == nil && at == 0 {
		err = fmt.Errorf("patch on layer %d: %w", n, errdefs.ErrNotFound)
	}
	return patch, at, err
}

// checkPatch makes sure that a patch that was looked up earlier is still there.
func (tx *Tx) checkPatch(p Layer) error {
	if !tx.HasLayer(p.Number) {
		return fmt.Errorf("layer %d: %w", p.Number, ErrPatchGone)
	}
	return nil
}
