// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// node is a containerd on a Strata.
type node struct {
	o          options
	dir        string
	root       string // of the store
	namespaces []string
	containerd *process
	strata     *process
	client     *containerd.Client
	probes     atomic.Int64
}

func startNode(ctx context.Context, o options) (n *node, err error) {
	n = &node{o: o, dir: o.work, root: filepath.Join(o.work, "strata")}
	for _, suffix := range []string{"a", "b"} {
		n.namespaces = append(n.namespaces, fmt.Sprintf("strata-soak-%d-%s", os.Getpid(), suffix))
	}
	if err := writeConfigs(n.dir); err != nil {
		return n, err
	}
	if err := errors.Join(n.startStrata(), n.startContainerd()); err != nil {
		return n, err
	}
	if err := eventually(ctx, "containerd answers", func(context.Context) (err error) {
		n.client, err = containerd.New(n.address(), containerd.WithTimeout(5*time.Second))
		return err
	}); err != nil {
		return n, err
	}
	return n, n.waitReady(ctx)
}

func (n *node) address() string { return filepath.Join(n.dir, "c.sock") }

func (n *node) startStrata() (err error) {
	n.strata, err = startProcess(n.dir, n.o.bin, n.o.strata, "--config", filepath.Join(n.dir, "strata.toml"))
	return err
}

func (n *node) startContainerd() (err error) {
	n.containerd, err = startProcess(n.dir, n.o.bin, filepath.Join(n.o.bin, "containerd"), "--config", filepath.Join(n.dir, "containerd.toml"))
	return err
}

func (n *node) snapshots() snapshots.Snapshotter { return n.client.SnapshotService(snapshotter) }

// snapshotter is containerd's name for Strata.
const snapshotter = "strata"

// waitReady waits until containerd answers and has reached both services of the daemon
// (again), which it has a connection each to.
func (n *node) waitReady(ctx context.Context) error {
	ctx = namespaces.WithNamespace(ctx, n.namespaces[0])
	return eventually(ctx, "containerd reaches the daemon", func(ctx context.Context) error {
		for _, p := range []*process{n.strata, n.containerd} {
			if !p.running() {
				return fmt.Errorf("%s ended: %s", p.name, p.cmd.ProcessState)
			}
		}
		// Only a call that changes something is sure to go through: others containerd
		// answers itself.
		key := fmt.Sprintf("probe-%d", n.probes.Add(1))
		if _, err := n.snapshots().Prepare(ctx, key, ""); err != nil {
			return err
		}
		if err := n.snapshots().Remove(ctx, key); err != nil {
			return err
		}
		_, err := n.client.DiffService().Apply(ctx, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("nobody has this"), Size: 15,
		}, nil)
		if errdefs.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	})
}

// collect runs containerd's garbage collection and waits for its end: a lease's
// synchronous removal is the way to ask for one.
func (n *node) collect(ctx context.Context) error {
	manager := n.client.LeasesService()
	lease, err := manager.Create(ctx, leases.WithRandomID())
	if err != nil {
		return err
	}
	return manager.Delete(ctx, lease, leases.SynchronousDelete)
}

// eventually waits until check gives nil.
func eventually(ctx context.Context, what string, check func(context.Context) error) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		one, cancel := context.WithTimeout(ctx, 10*time.Second)
		err = check(one)
		cancel()
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s: still not so after %s: %w", what, patience, errors.Join(err, ctx.Err()))
}
