// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
)

// guardedStream keeps a handler that was left off the stream: gRPC has finished it then,
// and may not be told more.
type guardedStream struct {
	grpc.ServerStream
	ctx context.Context // with the steps of the call

	mu    sync.Mutex
	ended error
}

// end is called when the caller has its answer.
func (g *guardedStream) end(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = errors.Join(err, fmt.Errorf("the stream has ended: %w", errdefs.ErrAborted))
}

// Context returns that of the call.
func (g *guardedStream) Context() context.Context { return g.ctx }

// SendMsg sends m while the stream lasts. The lock is held meanwhile: a client that does
// not read makes it wait, until the stream's context ends.
func (g *guardedStream) SendMsg(m any) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended != nil {
		return g.ended
	}
	return g.ServerStream.SendMsg(m)
}

// RecvMsg receives m. Only the request comes, before anything can hang.
func (g *guardedStream) RecvMsg(m any) error { return g.ServerStream.RecvMsg(m) }
