// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"

	"github.com/strata-snapshotter/strata/internal/step"
)

const (
	// maxLeft is how many calls may go on without a caller before no further ones are
	// taken. Each can be a thread that hangs in the kernel.
	maxLeft = 64
	// leaveAfter is how long a call whose context has ended is waited for: one that works
	// ends by itself, and has cleaned up then.
	leaveAfter = time.Second
)

// calls lets the caller of each call go when its context ends, also where the file system
// hangs: nothing can be done about the thread that waits for it there, and what the thread
// does when it goes on leaves the store in order, as after an answer that got lost.
type calls struct {
	limits  callLimits
	observe observer

	mu   sync.Mutex
	left map[*call]struct{} // those without a caller
	idle chan struct{}      // closed when left becomes empty; nil: nobody waits for that
}

// callLimits are constants but in tests.
type callLimits struct {
	maxLeft    int
	leaveAfter time.Duration
	slowAfter  time.Duration // see watch
}

// observer is told of every call that ended, or was left: err is what its caller gets.
type observer interface {
	ended(method string, err error, took time.Duration)
	isSlow(method string)
	slowEnded(method string)
}

func newCalls(limits callLimits, observe observer) *calls {
	return &calls{limits: limits, observe: observe, left: map[*call]struct{}{}}
}

// call is one call.
type call struct {
	method, key string
	began       time.Time
	steps       step.Recorder
}

func (c *call) step() string {
	if what, since := c.steps.Current(); what != "" {
		return fmt.Sprintf("%s, for %s", what, time.Since(since).Round(time.Millisecond))
	}
	return "between steps"
}

func (c *call) String() string {
	name := c.method[strings.LastIndexByte(c.method, '/')+1:]
	return strings.TrimSpace(fmt.Sprintf("%s %s", name, c.key))
}

// isOurs says whether a method is one of containerd's APIs. The health service neither
// touches the disk nor has to end: its watches stay open.
func isOurs(method string) bool { return strings.HasPrefix(method, "/containerd.") }

// unary is the interceptor of calls with one answer.
func (cs *calls) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	if !isOurs(info.FullMethod) {
		return next(ctx, req)
	}
	var answer any
	err = cs.run(ctx, info.FullMethod, keyOf(req), func(ctx context.Context) (err error) {
		answer, err = next(ctx, req)
		return err
	}, func() { resp = answer })
	return resp, err
}

// stream is the interceptor of calls with many answers.
func (cs *calls) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if !isOurs(info.FullMethod) {
		return next(srv, ss)
	}
	guarded := &guardedStream{ServerStream: ss}
	err := cs.run(ss.Context(), info.FullMethod, "", func(ctx context.Context) error {
		guarded.ctx = ctx
		return next(srv, guarded)
	}, func() {})
	guarded.end(err)
	return err
}

// run runs fn, and returns when it has ended, or when ctx has and fn does not take notice.
// ended is called in the first case only: what fn wrote may be read then.
func (cs *calls) run(ctx context.Context, method, key string, fn func(context.Context) error, ended func()) (err error) {
	c := &call{method: method, key: key, began: time.Now()}
	defer func() { cs.observe.ended(method, err, time.Since(c.began)) }()
	if err := cs.admit(); err != nil {
		return err
	}
	ctx = step.With(ctx, &c.steps)
	stop := cs.watch(ctx, c)
	done := make(chan error, 1)
	go func() {
		err := fn(ctx)
		stop(err)
		done <- err
		cs.returned(c)
	}()
	select {
	case err := <-done:
		ended()
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(cs.limits.leaveAfter)
	defer timer.Stop()
	select {
	case err := <-done:
		ended()
		return err
	case <-timer.C:
	}
	if over, err := cs.leave(c, done); over {
		ended()
		return err
	}
	return fmt.Errorf("%s does not end (%s): %w", c, c.step(), ctx.Err())
}

// admit refuses calls while too many hang.
func (cs *calls) admit() error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if len(cs.left) < cs.limits.maxLeft {
		return nil
	}
	return fmt.Errorf("%d calls hang whose callers are gone, the oldest is %s; the disk does not answer: %w", len(cs.left), cs.oldest(), errdefs.ErrUnavailable)
}

func (cs *calls) oldest() string {
	var oldest *call
	for c := range cs.left {
		if oldest == nil || c.began.Before(oldest.began) {
			oldest = c
		}
	}
	if oldest == nil {
		return "none"
	}
	return fmt.Sprintf("%s (%s)", oldest, oldest.step())
}

// leave lets the caller of c go, unless c is over this moment, with an error of its own.
func (cs *calls) leave(c *call, done <-chan error) (over bool, err error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	select {
	case err := <-done:
		return true, err
	default:
		cs.left[c] = struct{}{}
		return false, nil
	}
}

// returned is called after the end of every call.
func (cs *calls) returned(c *call) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.left, c)
	if len(cs.left) == 0 && cs.idle != nil {
		close(cs.idle)
		cs.idle = nil
	}
}

// wait returns when no call is left that goes on without a caller, or after timeout with
// ErrUnavailable.
func (cs *calls) wait(timeout time.Duration) error {
	cs.mu.Lock()
	if len(cs.left) == 0 {
		cs.mu.Unlock()
		return nil
	}
	if cs.idle == nil {
		cs.idle = make(chan struct{})
	}
	idle := cs.idle
	cs.mu.Unlock()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-idle:
		return nil
	case <-timer.C:
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return fmt.Errorf("%d calls still hang, the oldest is %s; the next start puts the root in order: %w", len(cs.left), cs.oldest(), errdefs.ErrUnavailable)
}
