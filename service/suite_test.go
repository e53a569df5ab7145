// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/snapshottest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// served returns what containerd's suite calls for every test: a service of its
// own on a socket of its own, seen through containerd's proxy.
func served(t *testing.T, options config.Snapshotter, wrap func(snapshots.Snapshotter) snapshots.Snapshotter) testsuite.SnapshotterFunc {
	return func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		sockets, err := os.MkdirTemp("", "strata")
		if err != nil {
			return nil, nil, err
		}
		cfg := config.Default()
		cfg.Root, cfg.Address, cfg.Snapshotter = root, filepath.Join(sockets, "s"), options
		s, err := New(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		conn, err := grpc.NewClient("unix://"+cfg.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, nil, err
		}
		serving, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- s.Serve(serving) }()
		end := func() error {
			stop()
			err := errors.Join(conn.Close(), <-done, s.Close(), os.RemoveAll(sockets))
			fscktest.Clean(t, root)
			return err
		}
		return wrap(proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "strata")), end, nil
	}
}

func plain(s snapshots.Snapshotter) snapshots.Snapshotter { return s }

func TestSuite(t *testing.T) {
	testutil.RequireRoot(t)
	for name, change := range map[string]func(*config.Snapshotter){
		"default":      func(*config.Snapshotter) {},
		"sync remove":  func(o *config.Snapshotter) { o.SyncRemove = true },
		"no idmapping": func(o *config.Snapshotter) { o.IDMappedMounts = "off" },
		"slow chown":   func(o *config.Snapshotter) { o.IDMappedMounts, o.SlowChown = "off", true },
	} {
		t.Run(name, func(t *testing.T) {
			options := config.Default().Snapshotter
			change(&options)
			testsuite.SnapshotterSuite(t, "overlayfs", served(t, options, plain))
		})
	}
}

func TestSuiteRemapped(t *testing.T) {
	testutil.RequireRoot(t)
	testsuite.SnapshotterSuite(t, "overlayfs", served(t, config.Default().Snapshotter, func(s snapshots.Snapshotter) snapshots.Snapshotter {
		return snapshottest.IdentityMapped{Snapshotter: s}
	}))
}

func TestSuiteLateParent(t *testing.T) {
	testutil.RequireRoot(t)
	testsuite.SnapshotterSuite(t, "overlayfs", served(t, config.Default().Snapshotter, func(s snapshots.Snapshotter) snapshots.Snapshotter {
		return snapshottest.NewLateParent(s)
	}))
}

func TestSuiteInUserNamespace(t *testing.T) {
	if !testutil.InUserNS(t, 100000) {
		return
	}
	testsuite.SnapshotterSuite(t, "overlayfs", served(t, config.Default().Snapshotter, plain))
}
