// SPDX-License-Identifier: Apache-2.0

package rootless

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// handed are the signals that reach the copy through this process.
var handed = []os.Signal{
	syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2,
}

// signals keeps this process alive through signals that are the copy's.
type signals struct {
	caught chan os.Signal
	done   chan struct{}
}

func catch() *signals {
	s := &signals{caught: make(chan os.Signal, 16), done: make(chan struct{})}
	for _, sig := range handed {
		if !signal.Ignored(sig) { // by nohup(1), for the copy too
			signal.Notify(s.caught, sig)
		}
	}
	return s
}

func (s *signals) stop() {
	signal.Stop(s.caught)
	close(s.done)
}

// handTo sends what is caught to a process, and leaves out what it got from the
// terminal itself: a second SIGINT would mean more than the first.
func (s *signals) handTo(p *os.Process) {
	go func() {
		for {
			select {
			case <-s.done:
				return
			case sig := <-s.caught:
				if fromTerminal(sig) {
					continue
				}
				_ = p.Signal(sig) // it may have ended meanwhile
			}
		}
	}()
}

// fromTerminal tells whether a signal is one that terminals send, and this process, with
// the copy, in the foreground of its terminal.
func fromTerminal(sig os.Signal) bool {
	if sig != syscall.SIGINT && sig != syscall.SIGQUIT {
		return false
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer func() { _ = tty.Close() }() // nothing was written
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
