// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// errClosed is what a Reader answers after Close: its buffers may already belong
// to another one.
var errClosed = fmt.Errorf("decompress a layer after Close: %w", errdefs.ErrFailedPrecondition)

// corrupt is the error for data that breaks the format f at the compressed offset.
func corrupt(f Format, offset int64, what string) error {
	return fmt.Errorf("%v blob is corrupt at compressed offset %d (%s), pull it again: %w",
		f, offset, what, errdefs.ErrInvalidArgument)
}

// truncated is the error for a blob that ends in the middle of its data.
func truncated(f Format, offset int64) error {
	return fmt.Errorf("%v blob ends early, at compressed offset %d, pull it again: %w",
		f, offset, errors.Join(io.ErrUnexpectedEOF, errdefs.ErrInvalidArgument))
}
