// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sync/errgroup"
)

// compareTrees mounts what both sides made. Known differences are in the metadata of
// the directories of implicit.
func compareTrees(ctx context.Context, dir string, pair [2]*unpacked, implicit map[string]bool) (unknown, known []string, err error) {
	var trees [2]map[string]entry
	group, groupCtx := errgroup.WithContext(ctx)
	for i, u := range pair {
		group.Go(func() (err error) {
			trees[i], err = u.tree(groupCtx, dir)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	unknown, known = differences(trees[0], trees[1], implicit)
	return unknown, known, nil
}

// tree scans a read-only view of the topmost snapshot.
func (u *unpacked) tree(ctx context.Context, dir string) (entries map[string]entry, err error) {
	ctx = leases.WithLease(inNamespace(ctx), u.lease.ID)
	service := u.side.client.SnapshotService(u.side.snapshotter)
	const key = "bench-view"
	mounts, err := service.View(ctx, key, u.top, snapshots.WithLabels(nil))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.side.name, err)
	}
	defer func() { err = errors.Join(err, service.Remove(context.WithoutCancel(ctx), key)) }()
	target, err := os.MkdirTemp(dir, "view-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(target)) }()
	if err := mount.All(mounts, target); err != nil {
		return nil, fmt.Errorf("%s: mounting %v: %w", u.side.name, mounts, err)
	}
	defer func() { err = errors.Join(err, mount.UnmountAll(target, 0)) }()
	return scan(ctx, target)
}

// differences compares what containerd made with what Strata made.
func differences(theirs, ours map[string]entry, implicit map[string]bool) (unknown, known []string) {
	paths := maps.Clone(theirs)
	maps.Copy(paths, ours)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		a, isTheirs := theirs[path]
		b, isOurs := ours[path]
		switch {
		case b == ghost:
			unknown = append(unknown, path+": Strata lists it, but does not have it")
		case isTheirs && isOurs && a == b:
		case !isOurs && a == ghost:
			known = append(known, path+": containerd lists it, but does not have it")
		case !isOurs:
			unknown = append(unknown, path+": only containerd has it")
		case !isTheirs:
			unknown = append(unknown, path+": only Strata has it")
		case a.kind.IsDir() && b.kind.IsDir() && implicit[path]:
			known = append(known, differ(path, a, b))
		default:
			unknown = append(unknown, differ(path, a, b))
		}
	}
	return unknown, known
}

func differ(path string, theirs, ours entry) string {
	return fmt.Sprintf("%s: containerd %s %s %s, Strata %s %s %s", path,
		theirs.kind, theirs.meta, theirs.content, ours.kind, ours.meta, ours.content)
}
