// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// opStore is a snapshotter whose operations are measured, without a containerd:
// containerd's own in this process, Strata's behind its socket, over one connection as
// containerd has it.
type opStore struct {
	*side
	snapshots.Snapshotter
	conn   *grpc.ClientConn
	serial int // of the next snapshot to be measured
	// syncs: a layer's file system is synced before it is committed, as containerd's differ
	// does with sync_fs. Its snapshotter never does.
	syncs bool
}

// removal is whether Remove waits for files to be deleted.
type removal int

const (
	inBackground removal = iota // as both come
	synchronous
)

// openStore starts the snapshotter. Strata is durable as it comes, but for filling it.
func (s *opStore) openStore(ctx context.Context, durability string, remove removal) (err error) {
	if s.strata == "" {
		s.Snapshotter, err = openOverlay(s.snapshotRoot(), remove)
		return err
	}
	s.extra = ""
	if remove == synchronous {
		s.extra = "sync_remove = true\n"
	}
	if err := errors.Join(s.writeConfigs(durability), s.startStrata(ctx)); err != nil {
		return err
	}
	s.conn, err = grpc.NewClient("unix://"+s.file("strata.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	s.Snapshotter = proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(s.conn), "strata")
	return nil
}

// openOverlay makes containerd's snapshotter as its plugin does with an empty
// configuration, or with sync_remove.
func openOverlay(root string, remove removal) (snapshots.Snapshotter, error) {
	var opts []overlay.Opt
	if remove == inBackground {
		opts = append(opts, overlay.AsynchronousRemove)
	}
	if ok, err := overlayutils.SupportsIDMappedMounts(); err == nil && ok {
		opts = append(opts, overlay.WithRemapIDs)
	}
	return overlay.NewSnapshotter(root, opts...)
}

func (s *opStore) closeStore() (err error) {
	if s.Snapshotter == nil {
		return nil
	}
	err = s.Close()
	s.Snapshotter = nil
	if s.conn != nil {
		err = errors.Join(err, s.conn.Close())
		s.conn = nil
	}
	return errors.Join(err, s.stop())
}

// reopen starts it anew, with everything on disk.
func (s *opStore) reopen(ctx context.Context, durability string, remove removal) error {
	if err := s.closeStore(); err != nil {
		return err
	}
	if err := s.fs.flush(); err != nil {
		return err
	}
	return s.openStore(ctx, durability, remove)
}

// cleanup deletes what was removed, as containerd's garbage collection lets it.
func (s *opStore) cleanup(ctx context.Context) error {
	cleaner, ok := s.Snapshotter.(snapshots.Cleaner)
	if !ok {
		return errors.New("no Cleanup")
	}
	return errors.Join(cleaner.Cleanup(ctx), s.fs.flush())
}

// database is the size of metadata.db in bytes.
func (s *opStore) database() (int64, error) {
	info, err := os.Stat(filepath.Join(s.snapshotRoot(), "metadata.db"))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
