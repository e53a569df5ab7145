// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// maxIdleThreads is how many threads are kept for the next layers: a small layer takes
// less time than making one.
const maxIdleThreads = 8

// idleThreads are what threads that have nothing to do get their next work by. They
// belong to the process, as a umask does, and have no other state.
var idleThreads = make(chan chan<- job, maxIdleThreads)

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
	case idle := <-idleThreads:
		idle <- j
	default:
		go thread(j)
	}
	return <-done
}

// thread does j, and then what it is given, until there are enough others without work.
func thread(j job) {
	runtime.LockOSThread() // never unlocked: nothing else may run on it, and it ends with this
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		j.done <- fmt.Errorf("leave the process's umask: %w", err)
		return
	}
	unix.Umask(0)
	jobs := make(chan job)
	for {
		j.done <- j.fn()
		select {
		case idleThreads <- jobs:
			j = <-jobs
		default:
			return
		}
	}
}
