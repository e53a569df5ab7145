// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Environment is the variable that sets the points of a process.
const Environment = "STRATA_FAILPOINTS"

// setting is what a point does when it is reached.
type setting struct {
	action string
	nth    int // 0: every time
	// block, if set, is closed when the point is reached the first time, which then
	// waits for release.
	block, release chan struct{}
}

// points are those of the process: the code that reaches them passes nothing along.
var points struct {
	mu      sync.Mutex
	loaded  bool
	set     map[Point]setting
	reached map[Point]int
}

// Hit fails if a test said that the step is to fail: with ErrInternal.
func Hit(p Point) error {
	s, ok := reach(p)
	if !ok {
		return nil
	}
	if s.block != nil {
		close(s.block)
		<-s.release
		return nil
	}
	switch s.action {
	case "crash":
		crash()
	case "sleep":
		time.Sleep(time.Second)
	case "error":
		return fmt.Errorf("failpoint %s: %w", p, errdefs.ErrInternal)
	}
	return nil
}

// Pass is Hit for what comes after a step, and can't fail any more.
func Pass(p Point) { _ = Hit(p) }

// crash ends the process with nothing flushed, closed or deferred.
func crash() {
	if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
		os.Exit(137)
	}
	select {} // the signal is on its way
}

func reach(p Point) (setting, bool) {
	points.mu.Lock()
	defer points.mu.Unlock()
	load()
	points.reached[p]++
	s, ok := points.set[p]
	if !ok || s.nth != 0 && s.nth != points.reached[p] {
		return s, false
	}
	if s.block != nil {
		delete(points.set, p)
	}
	return s, true
}

// load reads the environment once. The caller holds points.mu.
func load() {
	if points.loaded {
		return
	}
	points.loaded, points.set, points.reached = true, map[Point]setting{}, map[Point]int{}
	for _, one := range strings.FieldsFunc(os.Getenv(Environment), func(r rune) bool { return r == ';' }) {
		p, action, _ := strings.Cut(one, "=")
		s, err := parse(Point(p), action)
		if err != nil {
			panic(fmt.Sprintf("%s: %v", Environment, err))
		}
		points.set[Point(p)] = s
	}
}

func parse(p Point, action string) (s setting, err error) {
	if !slices.Contains(slices.Concat(Points(), RebuildPoints(), RepairPoints()), p) {
		return s, fmt.Errorf("there is no failpoint %q: %w", p, errdefs.ErrInvalidArgument)
	}
	name, nth, counted := strings.Cut(action, "@")
	if counted {
		if s.nth, err = strconv.Atoi(nth); err != nil || s.nth < 1 {
			return s, fmt.Errorf("failpoint %s: %q is not a number from 1: %w", p, nth, errdefs.ErrInvalidArgument)
		}
	}
	if !slices.Contains([]string{"crash", "error", "sleep"}, name) {
		return s, fmt.Errorf("failpoint %s: %q is neither crash, error nor sleep: %w", p, name, errdefs.ErrInvalidArgument)
	}
	s.action = name
	return s, nil
}

// Set makes a point act: see the package for the words. ErrInvalidArgument: there is
// no such point or action.
func Set(p Point, action string) error {
	s, err := parse(p, action)
	if err != nil {
		return err
	}
	points.mu.Lock()
	defer points.mu.Unlock()
	load()
	points.set[p] = s
	return nil
}

// Block makes whoever reaches a point first wait until release is called. The channel
// is closed when that happens.
func Block(p Point) (reached <-chan struct{}, release func()) {
	s := setting{block: make(chan struct{}), release: make(chan struct{})}
	points.mu.Lock()
	defer points.mu.Unlock()
	load()
	points.set[p] = s
	return s.block, sync.OnceFunc(func() { close(s.release) })
}

// Reached returns how often a point was reached since Reset.
func Reached(p Point) int {
	points.mu.Lock()
	defer points.mu.Unlock()
	load()
	return points.reached[p]
}

// Reset makes all points do nothing, and counts from zero.
func Reset() {
	points.mu.Lock()
	defer points.mu.Unlock()
	load()
	clear(points.set)
	clear(points.reached)
}
