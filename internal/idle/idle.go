// SPDX-License-Identifier: Apache-2.0

// Package idle runs what nobody waits for, so that others get disk and processor first.
package idle

import (
	"context"
	"errors"
	"runtime"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

const (
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13

	// nicest is the lowest priority of a process, see nice(2).
	nicest = 19
)

// Run runs fn on a thread of its own, which gets the disk only when nobody else wants it
// (where the disk's scheduler knows priorities, see ioprio_set(2)), and the processor
// after others. What fn starts does not inherit that. The error is fn's; priorities that
// can't be changed are only logged.
func Run(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its priority
		if err := errors.Join(lower(), unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), nicest)); err != nil {
			log.G(ctx).WithError(err).Debug("can't lower the priority of a thread")
		}
		done <- fn()
	}()
	return <-done
}

// lower acts on the calling thread.
func lower() error {
	_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle)
	if errno != 0 {
		return errno
	}
	return nil
}
