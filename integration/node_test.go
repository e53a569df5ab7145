// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// node is a containerd on a Strata, both private to one test.
type node struct {
	t          *testing.T
	settings   settings
	dir        string
	root       string // where Strata keeps its store
	namespace  string // containerd namespace, and name of the control group
	namespaces []string
	containerd *process
	strata     *process
	client     *containerd.Client
}

var counter atomic.Int32

// newNode starts both and registers the clean-up and leak checks.
func newNode(t *testing.T, s settings) *node {
	t.Helper()
	if env.missing != nil {
		unable(t, env.missing.Error())
	}
	dir, err := os.MkdirTemp("", "strata-it-")
	if err != nil {
		t.Fatal(err)
	}
	// A container's root in a user namespace is nobody in particular out here and
	// must be able to walk through to its root file system.
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	s.derive(dir)
	n := &node{t: t, settings: s, dir: dir, root: filepath.Join(dir, "strata")}
	if s.plugin {
		n.root = filepath.Join(dir, "containerd", "io.containerd.snapshotter.v1.strata")
	}
	n.namespace = fmt.Sprintf("strata-it-%d-%d", os.Getpid(), counter.Add(1))
	n.namespaces = []string{n.namespace}
	t.Cleanup(n.close)
	containerdConfig, _ := s.write(t)
	if env.snapshotter == "strata" && !s.plugin {
		n.startStrata()
	}
	n.containerd = startProcess(t, dir, s.shims, s.containerd, "--config", containerdConfig)
	n.connect()
	return n
}

func (n *node) address() string { return filepath.Join(n.dir, "c.sock") }

// startStrata starts the daemon, also again after it was killed.
func (n *node) startStrata() {
	n.t.Helper()
	socket := filepath.Join(n.dir, "strata.sock")
	n.strata = startProcess(n.t, n.dir, env.bin, env.strata,
		"--config", filepath.Join(n.dir, "strata.toml"), "--root", n.root,
		"--address", socket, "--containerd-address", n.address(), "--log-level", "debug")
	eventually(n.t, "Strata answers", func() error {
		if !n.strata.running() {
			n.t.Fatalf("Strata ended at its start: %s", n.strata.cmd.ProcessState)
		}
		conn, err := net.DialTimeout("unix", socket, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// killStrata is a crash: nothing of the daemon runs at its end.
func (n *node) killStrata() {
	n.t.Helper()
	if err := n.strata.signal(syscall.SIGKILL); err != nil {
		n.t.Fatal(err)
	}
}

// waitSnapshotter waits until containerd has reached the snapshotter (again). Only a
// call that changes something is sure to go through: others are answered by containerd
// itself where it knows of no snapshot.
func (n *node) waitSnapshotter() {
	n.t.Helper()
	eventually(n.t, "containerd reaches the snapshotter", func() error {
		ctx, cancel := context.WithTimeout(n.ctx(), 5*time.Second)
		defer cancel()
		key := fmt.Sprintf("probe-%d", counter.Add(1))
		if _, err := n.snapshots().Prepare(ctx, key, ""); err != nil {
			return err
		}
		return n.snapshots().Remove(ctx, key)
	})
}

func (n *node) connect() {
	n.t.Helper()
	eventually(n.t, "containerd answers", func() error {
		if !n.containerd.running() {
			n.t.Fatalf("containerd ended at its start: %s", n.containerd.cmd.ProcessState)
		}
		if n.client == nil {
			client, err := containerd.New(n.address(), containerd.WithTimeout(5*time.Second))
			if err != nil {
				return err
			}
			n.client = client
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if ok, err := n.client.IsServing(ctx); !ok {
			return errors.Join(errors.New("not serving"), err)
		}
		return nil
	})
}

// ctx is for calls in the test's namespace; it ends with the test's patience, as a
// call to a dead daemon would hang.
func (n *node) ctx() context.Context { return n.in(n.namespace) }

func (n *node) in(namespace string) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	n.t.Cleanup(cancel)
	return namespaces.WithNamespace(ctx, namespace)
}

// addNamespace makes up a second containerd namespace, which is wiped too.
func (n *node) addNamespace(suffix string) string {
	name := n.namespace + "-" + suffix
	n.namespaces = append(n.namespaces, name)
	return name
}

func (n *node) snapshots() snapshots.Snapshotter {
	return n.client.SnapshotService(n.settings.snapshotter)
}
