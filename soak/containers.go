// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
)

// start makes a container that writes, and then goes on or ends.
func (c *client) start(ctx context.Context, o op) error {
	id := o.container.id
	if err := c.discard(ctx, id); err != nil { // what an earlier try left
		return err
	}
	args := []string{"/bin/sleep", "100000"}
	if !o.container.idle {
		args = []string{"/bin/sh", "-ec", script(o.write)}
	}
	created, err := c.create(ctx, id, o.image.ref, args)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	task, err := created.NewTask(ctx, cio.NullIO)
	if err != nil {
		return fmt.Errorf("create the task: %w", err)
	}
	ended, err := task.Wait(ctx)
	if err != nil {
		return err
	}
	if err := task.Start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	if o.container.idle {
		return c.exec(ctx, id, script(o.write))
	}
	if err := succeeded(ctx, ended); err != nil {
		return err
	}
	_, err = task.Delete(ctx)
	return err
}

func (c *client) create(ctx context.Context, id, ref string, args []string) (containerd.Container, error) {
	img, err := c.node.client.GetImage(ctx, ref)
	if err != nil {
		return nil, err
	}
	// What it takes may have been collected for another client meanwhile.
	if err := img.Unpack(ctx, snapshotter); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return c.node.client.NewContainer(ctx, id,
		containerd.WithImage(img),
		containerd.WithSnapshotter(snapshotter),
		containerd.WithNewSnapshot(id, img),
		containerd.WithRuntime("io.containerd.runc.v2", &runcoptions.Options{
			BinaryName: c.node.runc(), Root: filepath.Join(c.node.dir, "runc"),
		}),
		containerd.WithNewSpec(oci.WithImageConfig(img), oci.WithProcessArgs(args...)))
}

func (n *node) runc() string { return filepath.Join(n.o.bin, "runc") }

// succeeded waits for the end of a process.
func succeeded(ctx context.Context, ended <-chan containerd.ExitStatus) error {
	select {
	case s := <-ended:
		if s.Error() != nil {
			return s.Error()
		}
		if s.ExitCode() != 0 {
			return fmt.Errorf("exit code %d", s.ExitCode())
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exec runs a script in a container that runs.
func (c *client) exec(ctx context.Context, id, text string) (err error) {
	loaded, err := c.node.client.LoadContainer(ctx, id)
	if err != nil {
		return err
	}
	task, err := loaded.Task(ctx, nil)
	if err != nil {
		return err
	}
	spec, err := loaded.Spec(ctx)
	if err != nil {
		return err
	}
	process := *spec.Process
	process.Args = []string{"/bin/sh", "-ec", text}
	c.execs++
	p, err := task.Exec(ctx, fmt.Sprintf("exec-%d", c.execs), &process, cio.NullIO)
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	// Of a try that failed nothing must go on beside the next.
	defer func() {
		_, deleteErr := p.Delete(context.WithoutCancel(ctx), containerd.WithProcessKill)
		err = errors.Join(err, deleteErr)
	}()
	ended, err := p.Wait(ctx)
	if err != nil {
		return err
	}
	if err := p.Start(ctx); err != nil {
		return fmt.Errorf("start the exec: %w", err)
	}
	return succeeded(ctx, ended)
}

// stop ends a container's processes and removes its task.
func (c *client) stop(ctx context.Context, loaded containerd.Container) error {
	task, err := loaded.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = task.Delete(ctx, containerd.WithProcessKill)
	var exit interface{ ExitCode() uint32 }
	if errdefs.IsNotFound(err) || errors.As(err, &exit) {
		return nil
	}
	return err
}

// discard removes a container and its snapshot, as far as they are there.
func (c *client) discard(ctx context.Context, id string) error {
	loaded, err := c.node.client.LoadContainer(ctx, id)
	if err == nil {
		if err := c.stop(ctx, loaded); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
		err = loaded.Delete(ctx)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if err := c.node.snapshots().Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the snapshot: %w", err)
	}
	return nil
}
