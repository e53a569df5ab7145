// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// lookAtContainer ends a container and compares what it left.
func (c *client) lookAtContainer(ctx context.Context, ctr *container) error {
	loaded, err := c.node.client.LoadContainer(ctx, ctr.id)
	if err != nil {
		return err
	}
	if err := c.stop(ctx, loaded); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	mounts, err := c.node.snapshots().Mounts(ctx, ctr.id)
	if err != nil {
		return err
	}
	return c.compare(mounts, ctr.content)
}

// lookAtImage compares what a view of an image shows.
func (c *client) lookAtImage(ctx context.Context, img *image) (err error) {
	ctx, done, err := c.node.client.WithLease(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done(context.WithoutCancel(ctx))) }()
	got, err := c.node.client.GetImage(ctx, img.ref)
	if err != nil {
		return err
	}
	if err := got.Unpack(ctx, snapshotter); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	diffIDs, err := got.RootFS(ctx)
	if err != nil {
		return err
	}
	c.looks++
	key := fmt.Sprintf("look-%d-%d", c.planner.id, c.looks)
	mounts, err := c.node.snapshots().View(ctx, key, identity.ChainID(diffIDs).String())
	if err != nil {
		return fmt.Errorf("view: %w", err)
	}
	defer func() { err = errors.Join(err, c.node.snapshots().Remove(context.WithoutCancel(ctx), key)) }()
	return c.compare(mounts, img.content)
}

// mostLines is how many differences are told.
const mostLines = 5

// compare looks at mounts as a container would.
func (c *client) compare(mounts []mount.Mount, want content) (err error) {
	tree, err := c.pool.tree(want)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Join(c.node.dir, "mounts"), "look-")
	if err != nil {
		return err
	}
	if err := mount.All(mounts, dir); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	defer func() { err = errors.Join(err, mount.UnmountAll(dir, unix.UMOUNT_NOFOLLOW), os.Remove(dir)) }()
	got, err := layertest.Dump(dir)
	if err != nil {
		return err
	}
	c.report.compared(len(got))
	if lines := tree.Diff(got); len(lines) > 0 {
		return fmt.Errorf("%w: %d paths of %v: %s", errWrong, len(lines), mounts, strings.Join(lines[:min(len(lines), mostLines)], "; "))
	}
	return nil
}
