// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"fmt"
	"sync"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	introspectionproxy "github.com/containerd/containerd/v2/core/introspection/proxy"
	leasesproxy "github.com/containerd/containerd/v2/core/leases/proxy"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// connectTimeout bounds the wait for containerd's socket. containerd is there
	// when it calls: a longer wait would only hide a wrong address.
	connectTimeout = 10 * time.Second
	// reconnectDelay is the longest pause between attempts, so that the first call
	// after a restart of containerd finds the connection made again.
	reconnectDelay = time.Second
	// retries makes the first calls of an Apply or Compare again, which are the ones
	// that find out about a connection that a restart of containerd cut. All of them
	// can be made twice.
	retries = `{"methodConfig": [{
		"name": [
			{"service": "containerd.services.content.v1.Content", "method": "Info"},
			{"service": "containerd.services.introspection.v1.Introspection", "method": "Plugins"},
			{"service": "containerd.services.leases.v1.Leases", "method": "Create"}],
		"retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 3,
			"retryableStatusCodes": ["UNAVAILABLE"]}}]}`
	// contentID is the name of containerd's own content store.
	contentID = "content"
)

// Client is containerd's services over its socket. Nothing is contacted before
// the first call, and a lost connection is made again by the next one.
type Client struct {
	address string
	conn    *grpc.ClientConn

	mu   sync.Mutex
	root string // of the content store, "" while it is not known
}

// NewClient makes a client of the containerd at the unix socket address, an
// absolute path. contentRoot is the directory of its content store; empty: it is
// asked for. The error is ErrInvalidArgument: no address can be made of it.
func NewClient(address, contentRoot string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectDelay / 10, Multiplier: 1.6, MaxDelay: reconnectDelay},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDefaultServiceConfig(retries),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
			grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)))
	if err != nil {
		return nil, fmt.Errorf("containerd's address %q: %w: %w", address, err, errdefs.ErrInvalidArgument)
	}
	return &Client{address: address, conn: conn, root: contentRoot}, nil
}

// Services returns what a Differ needs of containerd.
func (c *Client) Services() Services {
	return Services{
		Content: contentproxy.NewContentStore(c.conn),
		Leases:  leasesproxy.NewLeaseManager(leasesapi.NewLeasesClient(c.conn)),
		Root:    c.contentRoot,
		Ready:   c.ready,
	}
}

// Close ends the connection and the calls under way.
func (c *Client) Close() error { return c.conn.Close() }

// ready waits until the connection is there.
func (c *Client) ready(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for {
		state := c.conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Idle:
			c.conn.Connect()
		case connectivity.Shutdown:
			return fmt.Errorf("the connection to containerd was closed: %w", errdefs.ErrUnavailable)
		}
		if !c.conn.WaitForStateChange(wait, state) {
			return fmt.Errorf("containerd can't be reached at %s, check containerd_address: %w", c.address, errdefs.ErrUnavailable)
		}
	}
}

// contentRoot asks containerd once where it keeps its blobs. ErrNotFound: its
// content store has no directory.
func (c *Client) contentRoot(ctx context.Context) (string, error) {
	c.mu.Lock()
	root := c.root
	c.mu.Unlock()
	if root != "" {
		return root, nil
	}
	root, err := c.askRoot(ctx)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.root = root
	c.mu.Unlock()
	return root, nil
}

func (c *Client) askRoot(ctx context.Context) (string, error) {
	answer, err := introspectionproxy.NewIntrospectionProxy(c.conn).Plugins(ctx, "type=="+string(plugins.ContentPlugin)+",id=="+contentID)
	if err != nil {
		return "", fmt.Errorf("ask containerd for the content store's directory: %w", err)
	}
	for _, p := range answer.GetPlugins() {
		if root := p.GetExports()["root"]; root != "" {
			return root, nil
		}
	}
	return "", fmt.Errorf("containerd names no directory of its content store: %w", errdefs.ErrNotFound)
}
