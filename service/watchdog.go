// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"sync"
	"time"

	"github.com/containerd/log"
)

const (
	// slowAfter is how long a call may take before it is logged.
	slowAfter = 10 * time.Second
	// slowAtMost bounds the time between one entry of the same call and the next, which
	// doubles.
	slowAtMost = 10 * time.Minute
)

// watch logs c when it takes long, again and again at growing intervals, and when it ends
// then. The returned function is called at the end with its error.
func (cs *calls) watch(ctx context.Context, c *call) (stop func(error)) {
	w := &watched{call: c, log: log.G(ctx).WithField("method", c.method).WithField("key", c.key), observe: cs.observe, interval: cs.limits.slowAfter}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.interval, w.slow)
	return w.stop
}

// watched is a call with a timer.
type watched struct {
	call    *call
	log     *log.Entry
	observe observer

	mu       sync.Mutex
	timer    *time.Timer
	interval time.Duration
	logged   bool
	over     bool
}

func (w *watched) slow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	if !w.logged {
		w.observe.isSlow(w.call.method)
	}
	w.logged = true
	w.log.WithField("step", w.call.step()).WithField("d", time.Since(w.call.began)).Warn("a call takes long")
	w.timer.Reset(w.interval)
	w.interval = min(2*w.interval, slowAtMost)
}

func (w *watched) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
	if !w.logged {
		return
	}
	w.observe.slowEnded(w.call.method)
	entry := w.log.WithField("d", time.Since(w.call.began))
	if err != nil {
		entry = entry.WithError(err)
	}
	entry.Info("a call that took long has ended")
}
