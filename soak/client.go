// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// Bounds of an operation.
const (
	slowest = 2 * time.Minute // for one try
	tries   = 6               // where another client's collection came between
)

// client does one operation after another.
type client struct {
	*run
	planner   *planner
	namespace string
	execs     int
	looks     int
}

// loop works until the time is up, or something is found.
func (c *client) loop(ctx context.Context) {
	ctx = namespaces.WithNamespace(ctx, c.namespace)
	for time.Now().Before(c.end) && ctx.Err() == nil && !c.report.failed() {
		c.gate.RLock()
		o := c.planner.next()
		err := c.do(ctx, o)
		c.gate.RUnlock()
		if err != nil && ctx.Err() == nil {
			c.report.found("client %d: %s: %v", c.planner.id, o, err)
			return
		}
		c.report.did(o.kind)
	}
}

// do makes an operation, and makes it again where a restart was in between.
func (c *client) do(ctx context.Context, o op) error {
	for conflicts := 0; ; {
		if err := c.weather.wait(ctx); err != nil {
			return err
		}
		before := c.weather.epoch()
		err := c.try(ctx, o)
		switch {
		case err == nil || ctx.Err() != nil || errors.Is(err, errWrong):
			return err
		case c.weather.changed(before):
			c.report.interrupted()
		case errdefs.IsNotFound(err) && conflicts < tries:
			// containerd's clients find a chain that is there and do not hold it: a
			// collection for another client takes it away before they use it.
			conflicts++
			c.report.conflict()
		default:
			return err
		}
	}
}

// errWrong is that something is not what it has to be, which no restart excuses.
var errWrong = errors.New("wrong")

func (c *client) try(ctx context.Context, o op) error {
	ctx, cancel := context.WithTimeout(ctx, slowest)
	defer cancel()
	switch o.kind {
	case opPull:
		return c.pull(ctx, o)
	case opRun:
		return c.start(ctx, o)
	case opExec:
		return c.exec(ctx, o.container.id, check(o.seen)+script(o.write))
	case opLook:
		return c.lookAtContainer(ctx, o.container)
	case opLookImage:
		return c.lookAtImage(ctx, o.image)
	case opCommit:
		return c.commit(ctx, o)
	case opRemoveContainer:
		return c.discard(ctx, o.container.id)
	case opRemoveImage:
		return c.removeImage(ctx, o)
	case opCollect:
		return c.node.collect(ctx)
	}
	return fmt.Errorf("nobody knows how to %s: %w", o.kind, errWrong)
}
