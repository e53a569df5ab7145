// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

// introspector knows one content store.
type introspector struct {
	introspectionapi.UnimplementedIntrospectionServer
	root  string
	asked int
}

func (i *introspector) Plugins(context.Context, *introspectionapi.PluginsRequest) (*introspectionapi.PluginsResponse, error) {
	i.asked++
	return &introspectionapi.PluginsResponse{Plugins: []*introspectionapi.Plugin{{
		Type: "io.containerd.content.v1", ID: "content", Exports: map[string]string{"root": i.root},
	}}}, nil
}

// serve is containerd's content service on a socket, as a real server, until stop.
func (s *store) serve(address string, i *introspector) (stop func()) {
	s.t.Helper()
	ln, err := net.Listen("unix", address)
	must(s.t, err)
	server := grpc.NewServer()
	contentapi.RegisterContentServer(server, contentserver.New(s.db.ContentStore()))
	introspectionapi.RegisterIntrospectionServer(server, i)
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	return func() {
		server.Stop()
		must(s.t, <-done)
	}
}

// TestClient applies over a socket: with the directory that containerd names, through
// the API where there is none, and again after containerd was restarted.
func TestClient(t *testing.T) {
	for name, test := range map[string]struct {
		root       func(string) string
		configured string
		asked      int
	}{
		"directory":  {root: func(root string) string { return root }, asked: 1},
		"api":        {root: func(string) string { return "" }, asked: 2},
		"elsewhere":  {root: func(string) string { return "/nowhere" }, asked: 1},
		"configured": {root: func(string) string { return "" }, configured: "/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			desc := s.put(ociTar+"+gzip", gzipped(t, tarOf(t, testimage.File("file", "content"))))
			address := filepath.Join(t.TempDir(), "c.sock")
			client, err := diff.NewClient(address, test.configured)
			must(t, err)
			t.Cleanup(func() { must(t, client.Close()) })
			d := diff.New(diff.Config{Services: client.Services()})
			i := &introspector{root: test.root(s.root)}
			for range 2 {
				stop := s.serve(address, i)
				_, err := d.Apply(incoming(t), desc, bindMount(t.TempDir(), "rw"))
				stop()
				must(t, err)
			}
			if i.asked != test.asked {
				t.Errorf("asked for the directory %d times, want %d", i.asked, test.asked)
			}
		})
	}
}

// incoming has the namespace as a server finds it, on no outgoing call yet.
func incoming(t *testing.T) context.Context {
	return metadata.NewIncomingContext(t.Context(), metadata.Pairs(namespaces.GRPCHeader, testNamespace))
}

func TestClientWithoutContainerd(t *testing.T) {
	client, err := diff.NewClient(filepath.Join(t.TempDir(), "c.sock"), "")
	must(t, err)
	d := diff.New(diff.Config{Services: client.Services()})
	ctx, cancel := context.WithTimeout(inNamespace(t), 100*time.Millisecond)
	defer cancel()
	desc := ocispec.Descriptor{MediaType: ociTar}
	if _, err := d.Apply(ctx, desc, bindMount(t.TempDir(), "rw")); !errdefs.IsDeadlineExceeded(err) && !errdefs.IsUnavailable(err) {
		t.Errorf("no containerd: %v", err)
	}
	must(t, client.Close())
	if _, err := d.Apply(inNamespace(t), desc, bindMount(t.TempDir(), "rw")); !errdefs.IsUnavailable(err) {
		t.Errorf("closed: %v", err)
	}
}
