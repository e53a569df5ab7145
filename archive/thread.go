// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// threadIdle is how long a thread waits for the next layer. Those of an image come one
// after the other, and a small one takes less time than making a thread.
const threadIdle = time.Second

// threadWork is where threads that have nothing to do get their next work. They belong to
// the process, as a umask does, and have no other state.
var threadWork = make(chan job)

type job struct {
	fn   func() error
	done chan<- error
}

// onThread runs fn on a thread with a umask of 0, so that files are made with the mode
// they are to have. The umask belongs to the process unless a thread takes leave of it.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	j := job{fn, done}
	select {
	case threadWork <- j:
	default: // nobody waits for it
		go thread(j)
	}
	return <-done
}

// thread does j, and then what else there is, until there was nothing for a while.
func thread(j job) {
	runtime.LockOSThread() // never unlocked: nothing else may run on it, and it ends with this
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		j.done <- fmt.Errorf("leave the process's umask: %w", err)
		return
	}
	unix.Umask(0)
	for {
		j.done <- j.fn()
		select {
		case j = <-threadWork:
		case <-time.After(threadIdle):
			return
		}
	}
}
