// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/layerindex"
)

// upperdirLabel says which directory a snapshot has: the daemon is asked to show it.
const upperdirLabel = "containerd.io/snapshot/overlay.upperdir"

// list returns all snapshots of the daemon by name.
func (r *run) list(ctx context.Context) (map[string]snapshots.Info, error) {
	listed := map[string]snapshots.Info{}
	err := r.daemon.sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		listed[info.Name] = info
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the snapshots: %w", err)
	}
	return listed, nil
}

// compareAll compares what is there with what was answered and made.
func (r *run) compareAll(ctx context.Context) error {
	listed, err := r.list(ctx)
	if err != nil {
		return err
	}
	r.compareNames(listed)
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		kind, s := listed[name].Kind, r.registry.byName[name]
		if s == nil || !s.may(kind) {
			continue // a finding already
		}
		chain := s.chain
		if kind == snapshots.KindCommitted {
			r.report.Listed++
			if s.state != committed {
				r.report.Unanswered++
			}
		} else if chain = s.written; chain == nil || r.report.Kind == cut {
			continue // what a container has not committed need not survive a power cut
		}
		if err := r.compare(ctx, name, chain, kind); err != nil {
			r.report.found(failure, "look at %s: %v", name, err)
		}
	}
	return nil
}

// compareNames looks for snapshots that are there and should not be, and the other
// way round.
func (r *run) compareNames(listed map[string]snapshots.Info) {
	for name := range listed {
		if r.registry.byName[name] == nil {
			r.report.found(risen, "%s, which nobody asked for", name)
		}
	}
	for _, s := range r.registry.all() {
		info, there := listed[s.name]
		switch {
		case !there && (s.state == active || s.state == committed):
			r.report.found(lost, "%s", s.name)
		case there && s.state == gone:
			r.report.found(risen, "%s", s.name)
		case there:
			r.compareInfo(s, info)
		}
		if _, was := listed[fromOf(s)]; s.from != nil && s.state == asked && there == was {
			r.report.found(torn, "%s listed: %t, and as the active %s: %t", s.name, there, s.from.name, was)
		}
	}
}

// compareInfo compares what the daemon says of a snapshot.
func (r *run) compareInfo(s *snapshot, info snapshots.Info) {
	if !s.may(info.Kind) {
		r.report.found(torn, "%s is %s", s.name, info.Kind)
	}
	if info.Kind == snapshots.KindCommitted && s.parent != nil && info.Parent != s.parent.name {
		r.report.found(torn, "%s has the parent %q, want %s", s.name, info.Parent, s.parent.name)
	}
	if s.chain != nil {
		return
	}
	// Prepare, which has a directory and then a name for it, is for containers.
	if _, err := os.Stat(info.Labels[upperdirLabel]); err != nil {
		r.report.found(lost, "the directory of a container's snapshot %s: %v", s.name, err)
	}
}

func fromOf(s *snapshot) string {
	if s.from == nil {
		return ""
	}
	return s.from.name
}

// compare looks at a snapshot as a container would see it.
func (r *run) compare(ctx context.Context, name string, chain []*layer, kind snapshots.Kind) error {
	want, err := r.pool.tree(chain)
	if err != nil {
		return err
	}
	got, err := r.look(ctx, name, kind)
	if err != nil {
		return err
	}
	r.report.Entries += len(want)
	for _, line := range want.Diff(got) {
		r.report.difference(name, line)
	}
	return nil
}

// look reads what a snapshot shows: a committed one through a view.
func (r *run) look(ctx context.Context, name string, kind snapshots.Kind) (tree layertest.Tree, err error) {
	var mounts []mount.Mount
	if kind == snapshots.KindCommitted {
		var end func() error
		if mounts, end, err = r.view(ctx, name); err == nil {
			defer func() { err = errors.Join(err, end()) }()
		}
	} else {
		mounts, err = r.daemon.sn.Mounts(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(r.mountsDir(), "look-")
	if err != nil {
		return nil, err
	}
	if err := mount.All(mounts, dir); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	defer func() { err = errors.Join(err, mount.UnmountAll(dir, unix.UMOUNT_NOFOLLOW), os.Remove(dir)) }()
	return layertest.Dump(dir)
}

func (r *run) view(ctx context.Context, name string) (mounts []mount.Mount, end func() error, err error) {
	key := r.registry.name("look")
	mounts, err = r.daemon.sn.View(ctx, key, name)
	if err != nil {
		return nil, nil, fmt.Errorf("view: %w", err)
	}
	return mounts, func() error { return r.daemon.sn.Remove(ctx, key) }, nil
}

// cleanup looks for directories that nothing names after one Cleanup.
func (r *run) cleanup(ctx context.Context) error {
	if err := r.callCleanup(ctx); err != nil {
		return err
	}
	named, err := r.namedDirectories(ctx)
	if err != nil {
		return err
	}
	r.findOrphans(named)
	return nil
}

func (r *run) callCleanup(ctx context.Context) error {
	cleaner, ok := r.daemon.sn.(snapshots.Cleaner)
	if !ok {
		return errors.New("containerd's proxy is no snapshots.Cleaner any more")
	}
	return cleaner.Cleanup(ctx)
}

// findOrphans lists the directories of the root.
func (r *run) findOrphans(named map[string]bool) {
	for _, dir := range []string{"layers", "snapshots", "staging", "trash", "tmpmounts"} {
		entries, err := os.ReadDir(filepath.Join(r.setting.root, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			r.report.found(failure, "%v", err)
		}
		for _, e := range entries {
			path := filepath.Join(r.setting.root, dir, e.Name())
			if !named[filepath.Join(path, "fs")] {
				r.report.found(orphan, "%s/%s", dir, e.Name())
				continue
			}
			// Who unpacks the layer once more reads it.
			if b, err := os.ReadFile(filepath.Join(path, "layer.json")); dir == "layers" && (err != nil || !json.Valid(b)) {
				r.report.found(missing, "layer.json of layer %s: %v, %d bytes", e.Name(), err, len(b))
			} else if dir == "layers" {
				r.checkIndex(path, b)
			}
		}
	}
}

// checkIndex holds a layer against its index. Those that Strata's differ extracted have one.
func (r *run) checkIndex(path string, manifest []byte) {
	var m struct {
		DiffID string `json:"diffID"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		r.report.found(corrupt, "layer.json of %s: %v", path, err)
	}
	index, err := os.Open(filepath.Join(path, "index"))
	if errors.Is(err, os.ErrNotExist) && m.DiffID == "" {
		return
	}
	if err != nil {
		r.report.found(missing, "index of a layer: %v", err)
		return
	}
	defer index.Close() //nolint:errcheck // it was not written to
	dir, err := os.Open(filepath.Join(path, "fs"))
	if err != nil {
		r.report.found(missing, "%v", err)
		return
	}
	defer dir.Close() //nolint:errcheck // it was not written to
	problems := layerindex.Problems{}
	if _, err := layerindex.Verify(context.Background(), dir, index, layerindex.Options{}, problems.Add); err != nil || len(problems) > 0 {
		r.report.found(corrupt, "%s does not agree with its index: %v, %s", path, err, problems)
	}
}

// namedDirectories are those of all snapshots: their own, and those that mounts show,
// which a snapshot can have more of than one.
func (r *run) namedDirectories(ctx context.Context) (map[string]bool, error) {
	listed, err := r.list(ctx)
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for name, info := range listed {
		named[info.Labels[upperdirLabel]] = true
		mounts, err := r.mountsOf(ctx, name, info.Kind)
		if s := r.registry.byName[name]; errdefs.IsUnavailable(err) && s != nil && s.chain != nil && info.Kind == snapshots.KindActive {
			continue // an extraction need not survive a power cut; that it is removed is seen later
		}
		if err != nil {
			return nil, err
		}
		for _, m := range mounts {
			named[m.Source] = true
			for _, o := range m.Options {
				_, dirs, _ := strings.Cut(o, "lowerdir=")
				for dir := range strings.SplitSeq(dirs, ":") {
					named[dir] = true
				}
			}
		}
	}
	return named, nil
}

func (r *run) mountsOf(ctx context.Context, name string, kind snapshots.Kind) ([]mount.Mount, error) {
	if kind != snapshots.KindCommitted {
		return r.daemon.sn.Mounts(ctx, name)
	}
	mounts, end, err := r.view(ctx, name)
	if err != nil {
		return nil, err
	}
	return mounts, end()
}

// goOn does what clients do after a crash: they go on with what is there.
func (r *run) goOn(ctx context.Context) error {
	listed, err := r.list(ctx)
	if err != nil {
		return err
	}
	r.over.Store(false)
	r.registry.settle(listed)
	before := len(r.registry.all())
	c := &client{run: r, random: newRandom(r.report.Seed, 1000), mounts: r.mountsDir()}
	for _, do := range []func() error{
		func() error { return c.pull(ctx, c.image()) },
		func() error { return c.pullParallel(ctx, c.image()) },
		func() error { return c.container(ctx) },
		func() error { return c.remove(ctx) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	for _, s := range r.registry.all()[before:] {
		if s.state != committed {
			continue
		}
		if err := r.compare(ctx, s.name, s.chain, snapshots.KindCommitted); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes everything, and looks whether anything is left.
func (r *run) removeAll(ctx context.Context) error {
	for {
		listed, err := r.list(ctx)
		if err != nil {
			return err
		}
		if len(listed) == 0 {
			break
		}
		parents := map[string]bool{}
		for _, info := range listed {
			parents[info.Parent] = true
		}
		for name := range listed {
			if parents[name] {
				continue
			}
			if err := r.daemon.sn.Remove(ctx, name); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	return r.cleanup(ctx)
}
