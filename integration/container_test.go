// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
)

// output collects what a container's process prints; its fifo is read by another
// goroutine than the test's.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// container is a running container of a node.
type container struct {
	containerd.Container
	n      *node
	ctx    context.Context
	task   containerd.Task
	status <-chan containerd.ExitStatus
	out    *output
	execs  atomic.Int32
}

// spec is how a test's container differs from the usual one.
type spec struct {
	id       string
	ctx      context.Context                    // default: the node's namespace
	snapshot func() containerd.NewContainerOpts // default: a plain new snapshot
	options  []oci.SpecOpts
	args     []string
}

// idle keeps a container running until it is killed.
var idle = []string{"/bin/sleep", "600"}

// start creates and starts a container. Whatever it leaves is removed at the end.
func (n *node) start(image containerd.Image, s spec) *container {
	n.t.Helper()
	if s.ctx == nil {
		s.ctx = n.ctx()
	}
	snapshot := containerd.WithNewSnapshot(s.id, image)
	if s.snapshot != nil {
		snapshot = s.snapshot()
	}
	created, err := n.client.NewContainer(s.ctx, s.id,
		containerd.WithImage(image),
		containerd.WithSnapshotter(n.settings.snapshotter),
		snapshot,
		containerd.WithRuntime("io.containerd.runc.v2", &options.Options{
			BinaryName: n.settings.runc, Root: filepath.Join(n.dir, "runc"),
		}),
		containerd.WithNewSpec(append([]oci.SpecOpts{oci.WithImageConfig(image), oci.WithProcessArgs(s.args...)}, s.options...)...))
	if err != nil {
		n.t.Fatalf("creating container %s: %v", s.id, err)
	}
	c := &container{Container: created, n: n, ctx: s.ctx, out: &output{}}
	if c.task, err = created.NewTask(s.ctx, n.io(c.out)); err != nil {
		n.t.Fatalf("creating the task of %s: %v", s.id, err)
	}
	if c.status, err = c.task.Wait(s.ctx); err != nil {
		n.t.Fatal(err)
	}
	if err := c.task.Start(s.ctx); err != nil {
		n.t.Fatalf("starting %s: %v", s.id, err)
	}
	return c
}

func (n *node) io(out *output) cio.Creator {
	return cio.NewCreator(cio.WithStreams(nil, out, out), cio.WithFIFODir(filepath.Join(n.dir, "fifo")))
}

// wait waits for the container's own end and gives its exit code.
func (c *container) wait() uint32 {
	c.n.t.Helper()
	return await(c.ctx, c.n.t, c.status)
}

func await(ctx context.Context, t *testing.T, status <-chan containerd.ExitStatus) uint32 {
	t.Helper()
	select {
	case s := <-status:
		if s.Error() != nil {
			t.Fatal(s.Error())
		}
		return s.ExitCode()
	case <-ctx.Done():
		t.Fatalf("waiting for a process: %v", ctx.Err())
		return 0
	}
}

// exec runs a shell script in the container, which must succeed, and gives its output.
func (c *container) exec(script string) string {
	c.n.t.Helper()
	full, err := c.Spec(c.ctx)
	if err != nil {
		c.n.t.Fatal(err)
	}
	process := *full.Process
	process.Args = []string{"/bin/sh", "-ec", script}
	out := &output{}
	p, err := c.task.Exec(c.ctx, fmt.Sprintf("exec-%d", c.execs.Add(1)), &process, c.n.io(out))
	if err != nil {
		c.n.t.Fatalf("exec %q: %v", script, err)
	}
	status, err := p.Wait(c.ctx)
	if err != nil {
		c.n.t.Fatal(err)
	}
	if err := p.Start(c.ctx); err != nil {
		c.n.t.Fatalf("exec %q: %v", script, err)
	}
	code := await(c.ctx, c.n.t, status)
	p.IO().Wait() // Delete cancels what is still on its way
	if _, err := p.Delete(c.ctx); err != nil {
		c.n.t.Errorf("deleting an exec: %v", err)
	}
	if code != 0 {
		c.n.t.Fatalf("exec %q: exit code %d: %s", script, code, out)
	}
	return out.String()
}

// remove kills what still runs and deletes task, container and snapshot.
func (c *container) remove() {
	c.n.t.Helper()
	if err := c.task.Kill(c.ctx, syscall.SIGKILL); err == nil {
		c.wait()
	}
	if _, err := c.task.Delete(c.ctx); err != nil {
		c.n.t.Fatalf("deleting the task of %s: %v", c.ID(), err)
	}
	if err := c.Delete(c.ctx, containerd.WithSnapshotCleanup); err != nil {
		c.n.t.Fatalf("deleting %s: %v", c.ID(), err)
	}
}

// expect compares text and shows both when they differ.
func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}
