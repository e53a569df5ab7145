// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/strata-snapshotter/strata/internal/step"
)

// maxGroup bounds how many calls share a transaction, so that one that fails
// late does not make too many others run again.
const maxGroup = 256

const (
	// slow is from when on a transaction is worth waiting for others to share it.
	slow = 500 * time.Microsecond
	// longestWait bounds that.
	longestWait = 2 * time.Millisecond
	// pauses is how many groups are not waited for after one that did not come.
	pauses = 16
)

// writers is group commit. The first caller to find nobody at work leads: it
// runs everything that is queued in one transaction, whose fsync serves all.
// Whoever arrives meanwhile queues, and one of them leads the next group. A
// lone writer waits for nobody. Where transactions are slow, many writers that come again
// and again would be served in two groups by turns, each waiting for the other: a leader
// waits a moment for as many as there were last time.
type writers struct {
	db      *bolt.DB
	log     *recordLog
	payload []byte // of the leader's transaction, for the log
	broken  error  // bbolt panicked: its locks may be held for good
	room    room   // the leader's
	doubt   bool   // the leader's, see ErrInDoubt

	// The log is ahead after so many transactions: see ahead.go.
	aheadAfter int
	volatile   bool // nothing is synced, and the log is never ahead
	since      int  // the leader's: transactions since the store was opened
	mark       bool // the leader's: whether metadata.db says, after this transaction, that the log may be ahead
	marked     bool // the leader's: whether it says so now
	mu         sync.Mutex
	queue      []*write
	leading    bool

	crowd int           // how many had come when the last group was done
	took  time.Duration // by the last group
	ended time.Time     // the last group
	pause int           // groups not to wait for
	full  chan struct{} // closed when as many are there as are waited for
}

type write struct {
	fn    func(*Tx) error
	after *Barrier // synced before; nil: nothing is
	err   error
	done  chan struct{} // closed when err is final
	lead  chan struct{} // closed to make this writer the leader
}

// Update runs fn in a write transaction. When it returns without an error all
// that fn wrote is on disk; when it returns fn's error nothing of it is.
//
// fn may run more than once and must only change what the transaction holds.
// It should check first and write afterwards: an error that comes after a write
// makes the group run again without it. Nothing slow belongs in fn.
//
// When ctx ends before fn ran, Update returns the context's error; once it is
// running its outcome is waited for, since it can't be taken back.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.update(ctx, &write{fn: fn})
}

func (s *Store) update(ctx context.Context, w *write) error {
	defer step.Enter(ctx, step.Transaction)()
	if err := ctx.Err(); err != nil {
		return err
	}
	w.done, w.lead = make(chan struct{}), make(chan struct{})
	if s.writers.enqueue(w) {
		s.writers.run(s.path)
		return w.err
	}
	select {
	case <-w.done:
	case <-w.lead:
		s.writers.run(s.path)
	case <-ctx.Done():
		if s.writers.withdraw(w) {
			return ctx.Err()
		}
		select {
		case <-w.done:
		case <-w.lead:
			s.writers.run(s.path)
		}
	}
	return w.err
}

// enqueue adds w and says whether its caller leads.
func (ws *writers) enqueue(w *write) (leads bool) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.queue = append(ws.queue, w)
	if ws.full != nil && len(ws.queue) >= ws.crowd {
		close(ws.full)
		ws.full = nil
	}
	leads = !ws.leading
	ws.leading = true
	return leads
}

// withdraw takes w out of the queue if nobody has begun to run it and it has
// not been made the leader.
func (ws *writers) withdraw(w *write) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	select {
	case <-w.lead:
		return false
	default:
	}
	i := slices.Index(ws.queue, w)
	if i < 0 {
		return false
	}
	ws.queue = slices.Delete(ws.queue, i, i+1)
	return true
}

// run leads one group, which the leader's own call is part of, and passes the
// lead on.
func (ws *writers) run(path string) {
	ws.gather()
	ws.mu.Lock()
	n := min(len(ws.queue), maxGroup)
	group := slices.Clone(ws.queue[:n])
	ws.queue = slices.Delete(ws.queue, 0, n)
	ws.mu.Unlock()

	start := time.Now()
	ws.commit(path, syncFirst(group))

	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.ended = time.Now()
	ws.took, ws.crowd = ws.ended.Sub(start), min(len(group)+len(ws.queue), maxGroup)
	if len(ws.queue) == 0 {
		ws.leading = false
		return
	}
	close(ws.queue[0].lead)
}

// gather waits for those who were there last time, if that can pay: transactions are
// slow, the last one was just now, and who was waited for came before.
func (ws *writers) gather() {
	ws.mu.Lock()
	if ws.pause > 0 || ws.took < slow || len(ws.queue) >= ws.crowd || time.Since(ws.ended) > ws.took {
		ws.pause = max(ws.pause-1, 0)
		ws.mu.Unlock()
		return
	}
	full := make(chan struct{})
	ws.full = full
	wait := min(ws.took/2, longestWait)
	ws.mu.Unlock()
	select {
	case <-full:
		return
	case <-time.After(wait):
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.full != nil { // nobody closed it while the lock was free
		ws.full, ws.pause = nil, pauses
	}
}

// commit runs the group until everybody has an answer.
func (ws *writers) commit(path string, group []*write) {
	var alone []*write
	for len(group) > 0 {
		var spoiler *write
		if group, spoiler = ws.try(path, group); spoiler != nil {
			alone = append(alone, spoiler)
		}
	}
	for _, w := range alone {
		ws.try(path, []*write{w})
	}
}

// try runs the group in one transaction, and returns who has to run again. Where a call
// failed after it wrote, the transaction is lost, and the others run again without it.
//
// A call that failed has its answer at once only if it can't have seen what others of the
// group wrote: "it exists already" must not reach anybody before it is on disk and can be
// looked up. After others wrote, it waits for the commit with them, or, as the spoiler,
// for a transaction of its own.
func (ws *writers) try(path string, group []*write) (again []*write, spoiler *write) {
	tx, err := ws.begin(path)
	if err != nil {
		finish(group, err)
		return nil, nil
	}
	var waiting []*write
	dirty := false
	if err := ws.guard(path, func() error { return ws.markAhead(tx) }); err != nil {
		finish(group, errors.Join(err, ws.guard(path, tx.Rollback)))
		return nil, nil
	}
	for i, w := range group {
		t := &Tx{tx: tx, log: &ws.payload}
		if err := ws.guard(path, func() error { w.err = w.fn(t); return nil }); err != nil {
			finish(append(waiting, group[i:]...), errors.Join(err, ws.guard(path, tx.Rollback)))
			return nil, nil
		}
		if w.err != nil && !dirty {
			close(w.done)
		} else if w.err == nil || !t.wrote {
			waiting = append(waiting, w)
		}
		if w.err != nil && t.wrote {
			waiting = append(waiting, group[i+1:]...)
			if err := ws.guard(path, tx.Rollback); err != nil {
				finish(waiting, err)
				waiting = nil
			}
			if dirty {
				return waiting, w
			}
			return waiting, nil
		}
		dirty = dirty || t.wrote
	}
	if len(waiting) == 0 {
		_ = ws.guard(path, tx.Rollback) // nothing was written; only "already closed" can fail
		return nil, nil
	}
	answer(waiting, ws.end(path, tx))
	return nil, nil
}

// guard turns a panic of bbolt, which is about pages that make no sense, into
// ErrDataLoss. Nothing is written from then on: bbolt gives up no lock when it panics.
func (ws *writers) guard(path string, fn func() error) (err error) {
	defer func() {
		if errdefs.IsDataLoss(err) {
			ws.mu.Lock()
			ws.broken = err
			ws.mu.Unlock()
		}
	}()
	defer recoverDamage(path, &err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return fn()
}

func (ws *writers) isBroken() error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.broken
}

// answer ends those who waited for a commit: with what they found, or with its error,
// since then nothing of what they saw is there.
func answer(group []*write, err error) {
	if err != nil {
		finish(group, err)
		return
	}
	for _, w := range group {
		close(w.done)
	}
}

func finish(group []*write, err error) {
	for _, w := range group {
		w.err = err
		close(w.done)
	}
}
