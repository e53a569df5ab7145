// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"
)

// weather is what happens to the daemon and to containerd while the clients work.
type weather struct {
	node    *node
	report  *report
	random  *rand.Rand
	past    int           // events
	longest time.Duration // without one
	// changes is odd while something is not there.
	changes atomic.Int64
}

func (w *weather) epoch() int64 { return w.changes.Load() }

// changed says whether something was not there at some time since an epoch.
func (w *weather) changed(since int64) bool { return since%2 == 1 || w.epoch() != since }

// wait returns when everything is there.
func (w *weather) wait(ctx context.Context) error {
	for w.epoch()%2 == 1 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// event is something that can happen.
type event struct {
	name   string
	weight int
	daemon bool // to the daemon, not to containerd
	signal syscall.Signal
}

// containerd is given less: it takes long to start, and is tested elsewhere.
var events = []event{
	{"daemon killed", 4, true, syscall.SIGKILL},
	{"daemon stopped", 3, true, syscall.SIGTERM},
	{"containerd stopped", 2, false, syscall.SIGTERM},
	{"containerd killed", 1, false, syscall.SIGKILL},
}

// blow lets things happen until the time has come; from calm on only to containerd.
func (w *weather) blow(ctx context.Context, calm, end time.Time) {
	for ctx.Err() == nil && !w.report.failed() {
		pause := 500*time.Millisecond + time.Duration(w.random.Int64N(int64(w.longest)))
		e := w.pick(time.Now().Add(pause).After(calm))
		if time.Now().Add(pause).After(end) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if e.daemon && time.Now().After(calm) {
			continue
		}
		if err := w.happen(ctx, e); err != nil && ctx.Err() == nil {
			w.report.found("%s: %v", e.name, err)
			return
		}
	}
}

func (w *weather) pick(calm bool) event {
	if w.past++; w.past <= len(events) && !calm {
		return events[w.past-1] // each of them once, also in a short run
	}
	for {
		e := events[w.random.IntN(len(events))]
		if w.random.IntN(4) < e.weight && (!calm || !e.daemon) {
			return e
		}
	}
}

func (w *weather) happen(ctx context.Context, e event) error {
	w.changes.Add(1)
	defer w.changes.Add(1)
	p, start := w.node.containerd, w.node.startContainerd
	if e.daemon {
		p, start = w.node.strata, w.node.startStrata
	}
	if !p.running() {
		return fmt.Errorf("it had ended: %s", p.cmd.ProcessState)
	}
	end := func() error { return p.end(e.signal) }
	if e.signal == syscall.SIGTERM {
		end = p.stop
	}
	if err := end(); err != nil {
		return err
	}
	if err := start(); err != nil {
		return err
	}
	if err := w.node.waitReady(ctx); err != nil {
		return err
	}
	w.report.happened(e.name)
	return nil
}
