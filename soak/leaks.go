// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// sample is what the daemon has.
type sample struct {
	PID         int
	RSS         int // KiB
	Descriptors int
	Threads     int
	Goroutines  int
}

// What may be more in the end. Connections come and go, and what is free is given back to
// the kernel in its own time.
const (
	moreDescriptors = 8
	moreGoroutines  = 12
	moreMemory      = 32 << 10 // KiB, beside half of what there was
)

// measure looks at the daemon, which nobody must be using.
func (n *node) measure(ctx context.Context) (s sample, err error) {
	s.PID = n.strata.cmd.Process.Pid
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil {
		return s, err
	}
	s.RSS, s.Threads = field(status, "VmRSS"), field(status, "Threads")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID))
	if err != nil {
		return s, err
	}
	s.Descriptors = len(open)
	s.Goroutines, err = n.goroutines(ctx)
	return s, err
}

func field(status []byte, name string) int {
	for line := range strings.SplitSeq(string(status), "\n") {
		key, value, _ := strings.Cut(line, ":")
		if words := strings.Fields(value); key == name && len(words) > 0 {
			n, err := strconv.Atoi(words[0])
			if err == nil {
				return n
			}
		}
	}
	return 0
}

var goroutines = regexp.MustCompile(`wrote the stacks of all goroutines.*goroutines=(\d+)`)

// goroutines asks the daemon, which answers in its log.
func (n *node) goroutines(ctx context.Context) (count int, err error) {
	before, err := n.counts()
	if err != nil {
		return 0, err
	}
	if err := n.strata.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return 0, err
	}
	err = eventually(ctx, "the daemon counts its goroutines", func(context.Context) error {
		after, err := n.counts()
		if err != nil {
			return err
		}
		if len(after) == len(before) {
			return errors.New("no answer in its log")
		}
		count, err = strconv.Atoi(after[len(after)-1])
		return err
	})
	return count, err
}

func (n *node) counts() (all []string, err error) {
	text, err := os.ReadFile(n.strata.log)
	for _, match := range goroutines.FindAllSubmatch(text, -1) {
		all = append(all, string(match[1]))
	}
	return all, err
}

// judge compares the daemon in the end with the warm one.
func (r *report) judge(o options) {
	warm, end := r.Warm, r.End
	if warm.PID != end.PID {
		r.found("the daemon is not the one that was warm")
		return
	}
	if end.Descriptors > warm.Descriptors+moreDescriptors {
		r.found("the daemon has %d descriptors, and had %d", end.Descriptors, warm.Descriptors)
	}
	if end.Goroutines > warm.Goroutines+moreGoroutines {
		r.found("the daemon has %d goroutines, and had %d", end.Goroutines, warm.Goroutines)
	}
	if most := warm.RSS*3/2 + moreMemory; end.RSS > most && !o.race {
		r.found("the daemon takes %d KiB, and took %d: more than %d", end.RSS, warm.RSS, most)
	}
}
