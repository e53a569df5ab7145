// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// run is one run.
type run struct {
	node    *node
	pool    *pool
	report  *report
	weather *weather
	end     time.Time
	// gate keeps clients from beginning while the daemon is measured.
	gate sync.RWMutex
}

// When it gets calm, and when the daemon is warm after that, as parts of the whole time.
const (
	calmAfter = 0.6
	warmAfter = 0.7
)

// soak does it all. An error is that it could not be done; what is wrong is in the report.
func soak(ctx context.Context, o options) (rep *report, err error) {
	if err := checkTools(o.bin); err != nil {
		return nil, err
	}
	rep = newReport(o.seed)
	pool, err := newPool(ctx, o.bin)
	if pool != nil {
		defer func() { err = errors.Join(err, pool.close()) }()
	}
	if err != nil {
		return nil, err
	}
	n, err := startNode(ctx, o)
	r := &run{node: n, pool: pool, report: rep}
	if err != nil {
		r.report.problem("start", err)
	} else {
		r.work(ctx, o)
	}
	r.finish(ctx)
	return rep, ctx.Err()
}

// work has the clients and the weather go on until the time is up.
func (r *run) work(ctx context.Context, o options) {
	begin := time.Now()
	length := time.Duration(o.minutes * float64(time.Minute))
	at := func(part float64) time.Time { return begin.Add(time.Duration(part * float64(length))) }
	r.end = at(1)
	r.weather = &weather{node: r.node, report: r.report, random: rand.New(rand.NewPCG(o.seed, 1)), longest: min(7*time.Second, length/12)}
	var all sync.WaitGroup
	for i := range o.clients {
		c := &client{run: r, planner: newPlanner(o.seed, i, r.pool), namespace: r.node.namespaces[i%len(r.node.namespaces)]}
		all.Go(func() { c.loop(ctx) })
	}
	all.Go(func() { r.weather.blow(ctx, at(calmAfter), r.end) })
	all.Go(func() { r.warm(ctx, at(warmAfter)) })
	all.Wait()
	r.report.Seconds = int(time.Since(begin).Seconds())
	if ctx.Err() != nil || r.report.failed() {
		return
	}
	r.wipe(ctx)
	var err error
	r.report.End, err = r.node.measure(ctx)
	r.report.problem("measure the daemon in the end", err)
	r.report.judge(o)
}

// warm measures the daemon when nobody uses it, some time after its last start.
func (r *run) warm(ctx context.Context, when time.Time) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(time.Until(when)):
	}
	r.gate.Lock()
	defer r.gate.Unlock()
	if r.report.failed() || r.weather.wait(ctx) != nil {
		return
	}
	var err error
	r.report.Warm, err = r.node.measure(ctx)
	r.report.problem("measure the warm daemon", err)
}
