// SPDX-License-Identifier: Apache-2.0

package durable

import "sync"

// Shared runs one function, such as an fsync, for all who ask at about the same
// time. A caller is served by a run that began after it asked: one that was
// under way may have begun before the caller's change.
type Shared struct {
	run func() error

	mu      sync.Mutex
	running bool
	next    *sharedRun // what callers wait for while another run is under way
}

type sharedRun struct {
	callers int           // how many it will serve
	start   chan struct{} // closed to make one of the waiters run it
	done    chan struct{}
	err     error
}

// NewShared returns a Shared that runs fn.
func NewShared(fn func() error) *Shared { return &Shared{run: fn} }

// Do returns the result of a run that began after Do was called.
func (s *Shared) Do() error {
	s.mu.Lock()
	if !s.running {
		s.running = true
		s.mu.Unlock()
		err := s.run()
		s.finish()
		return err
	}
	first := s.next == nil
	if first {
		s.next = &sharedRun{start: make(chan struct{}), done: make(chan struct{})}
	}
	mine := s.next
	mine.callers++
	s.mu.Unlock()
	if !first {
		<-mine.done
		return mine.err
	}
	<-mine.start
	mine.err = s.run()
	close(mine.done)
	s.finish()
	return mine.err
}

// finish lets the next run begin, if anybody waits for one. From here on, who
// asks waits for the run after it.
func (s *Shared) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.running = false
		return
	}
	close(s.next.start)
	s.next = nil
}
