// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// setTimes is futimens(3): x/sys has no call for utimensat(2) without a path,
// and by path it would be twice as much work.
func setTimes(fd int, t stamp) error {
	ts := timespecs(t)
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("set its time: %w", errno)
	}
	return nil
}

// classify gives errors of the file system the class their reader can act on.
func classify(err error) error {
	var class error
	switch {
	case err == nil, errdefs.IsInvalidArgument(err), errdefs.IsResourceExhausted(err),
		errdefs.IsFailedPrecondition(err), errdefs.IsCanceled(err), errdefs.IsDeadlineExceeded(err):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE),
		errors.Is(err, unix.EMLINK), errors.Is(err, unix.EFBIG):
		class = errdefs.ErrResourceExhausted
	case errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EILSEQ):
		class = errdefs.ErrInvalidArgument
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		class = errdefs.ErrFailedPrecondition
	default:
		class = errdefs.ErrInternal
	}
	return fmt.Errorf("%w (%w)", err, class)
}
