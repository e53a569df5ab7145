// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// containerdVersion is the first whose unpacker takes staged snapshots, which the
// daemon then makes.
const containerdVersion = "v2.4.2"

// contentServer is what the daemon needs of a containerd.
type contentServer struct{ server *grpc.Server }

type version struct {
	versionapi.UnimplementedVersionServer
}

func (version) Version(context.Context, *emptypb.Empty) (*versionapi.VersionResponse, error) {
	return &versionapi.VersionResponse{Version: containerdVersion}, nil
}

func serveContent(address string, store content.Store) (*contentServer, error) {
	listener, err := net.Listen("unix", address)
	if err != nil {
		return nil, fmt.Errorf("serve the content store: %w", err)
	}
	s := &contentServer{server: grpc.NewServer()}
	contentapi.RegisterContentServer(s.server, contentserver.New(store))
	versionapi.RegisterVersionServer(s.server, version{})
	go func() { _ = s.server.Serve(listener) }() // ends with close
	return s, nil
}

func (s *contentServer) close() { s.server.Stop() }
