// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// checkMagic tells an index of a newer version from what is none.
func checkMagic(head []byte) error {
	last := len(magic) - 1
	switch {
	case string(head[:last]) != magic[:last]:
		return damaged("it does not begin like one")
	case head[last] != magic[last]:
		return fmt.Errorf("index of version %d, this program knows version %d: %w", head[last], magic[last], errdefs.ErrFailedPrecondition)
	}
	return nil
}
