// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// classes are those an error may have already; it keeps them.
var classes = []func(error) bool{
	errdefs.IsCanceled, errdefs.IsDeadlineExceeded, errdefs.IsInvalidArgument, errdefs.IsNotFound,
	errdefs.IsAlreadyExists, errdefs.IsPermissionDenied, errdefs.IsResourceExhausted, errdefs.IsFailedPrecondition,
	errdefs.IsAborted, errdefs.IsOutOfRange, errdefs.IsNotImplemented, errdefs.IsInternal, errdefs.IsUnavailable,
	errdefs.IsDataLoss, errdefs.IsUnauthorized, errdefs.IsUnknown,
}

// classify gives an error without a class the one that its reader can act on. The
// end of a context goes before any class: whatever failed then failed because of it.
func classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := ctx.Err(); cause != nil {
		return fmt.Errorf("%s: %w", err.Error(), cause)
	}
	for _, is := range classes {
		if is(err) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", err, errnoClass(err))
}

// errnoClass is for mounting and opening directories, whose paths came from the
// caller: one that is missing is not a snapshot or blob that is missing.
func errnoClass(err error) error {
	switch {
	case isAny(err, unix.ENOSPC, unix.EDQUOT, unix.EMFILE, unix.ENFILE, unix.ENOMEM):
		return errdefs.ErrResourceExhausted
	case isAny(err, unix.EPERM, unix.EACCES):
		return errdefs.ErrPermissionDenied
	case isAny(err, unix.EROFS, unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EBUSY, unix.ENODEV, unix.EINVAL):
		return errdefs.ErrFailedPrecondition
	}
	return errdefs.ErrInternal
}

func isAny(err error, codes ...unix.Errno) bool {
	for _, code := range codes {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
