// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"

	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
)

// classifyUnary gives an error that leaves a call the gRPC code of its
// errdefs class. Without it the client sees Unknown, and containerd can't
// tell a missing snapshot from a broken disk.
func classifyUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	return resp, errgrpc.ToGRPC(err)
}

// classifyStream is classifyUnary for streams; containerd's own List returns
// the error of Walk as it is.
func classifyStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return errgrpc.ToGRPC(next(srv, stream))
}
