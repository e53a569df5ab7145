// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// errnoClasses says which errdefs class stands for a system call's error. What
// is not listed is ErrInternal: the caller can do nothing about it.
var errnoClasses = map[unix.Errno]error{
	unix.EEXIST:       errdefs.ErrAlreadyExists,
	unix.ENOENT:       errdefs.ErrNotFound,
	unix.ENAMETOOLONG: errdefs.ErrInvalidArgument,
	unix.EINVAL:       errdefs.ErrInvalidArgument,
	unix.EPERM:        errdefs.ErrPermissionDenied,
	unix.EACCES:       errdefs.ErrPermissionDenied,
	unix.EROFS:        errdefs.ErrFailedPrecondition,
	unix.ENOTDIR:      errdefs.ErrFailedPrecondition,
	unix.ELOOP:        errdefs.ErrFailedPrecondition,
	unix.EOPNOTSUPP:   errdefs.ErrNotImplemented,
	unix.ENOSYS:       errdefs.ErrNotImplemented,
	unix.ENOSPC:       errdefs.ErrResourceExhausted,
	unix.EDQUOT:       errdefs.ErrResourceExhausted,
	unix.EMFILE:       errdefs.ErrResourceExhausted,
	unix.ENFILE:       errdefs.ErrResourceExhausted,
	unix.ENOMEM:       errdefs.ErrResourceExhausted,
}

// sysError adds what was tried and the errdefs class to the error of a system
// call. The errno stays in the chain.
func sysError(what string, err error) error {
	class := error(errdefs.ErrInternal)
	var errno unix.Errno
	if errors.As(err, &errno) {
		if c, ok := errnoClasses[errno]; ok {
			class = c
		}
	}
	return fmt.Errorf("%s: %w: %w", what, err, class)
}

func invalidArgument(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

func failedPrecondition(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errdefs.ErrFailedPrecondition)...)
}
