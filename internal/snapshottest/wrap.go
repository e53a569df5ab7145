// SPDX-License-Identifier: Apache-2.0

// Package snapshottest has what the tests of several packages need to run
// containerd's snapshotter suite in ways the suite does not know of.
package snapshottest

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
)

// IdentityMapped asks for an id mapping, which changes nothing, for every
// snapshot: the suite then runs on idmapped mounts.
type IdentityMapped struct{ snapshots.Snapshotter }

func mappedOpts(opts []snapshots.Opt) []snapshots.Opt {
	return append(slices.Clone(opts), snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotUIDMapping: "0:0:4294967295",
		snapshots.LabelSnapshotGIDMapping: "0:0:4294967295",
	}))
}

// Prepare implements snapshots.Snapshotter.
func (m IdentityMapped) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return m.Snapshotter.Prepare(ctx, key, parent, mappedOpts(opts)...)
}

// View implements snapshots.Snapshotter.
func (m IdentityMapped) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return m.Snapshotter.View(ctx, key, parent, mappedOpts(opts)...)
}

// LateParent prepares every snapshot without its parent and gives the parent at
// Commit, as a parallel unpack does. To the suite it looks as if the parent had
// been there: mounts get the parent's layers from a view of it.
type LateParent struct {
	snapshots.Snapshotter
	mu      sync.Mutex
	parents map[string]string // of active snapshots
}

const viewSuffix = "-parent-view"

// NewLateParent wraps s.
func NewLateParent(s snapshots.Snapshotter) *LateParent {
	return &LateParent{Snapshotter: s, parents: map[string]string{}}
}

func (l *LateParent) parent(key string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parents[key]
}

func (l *LateParent) setParent(key, parent string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if parent == "" {
		delete(l.parents, key)
		return
	}
	l.parents[key] = parent
}

// Prepare implements snapshots.Snapshotter.
func (l *LateParent) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if parent == "" {
		return l.Snapshotter.Prepare(ctx, key, "", opts...)
	}
	view, err := l.View(ctx, key+viewSuffix, parent)
	if err != nil {
		return nil, err
	}
	withRef := append(slices.Clone(opts), snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: "ref of " + key}))
	upper, err := l.Snapshotter.Prepare(ctx, key, "", withRef...)
	if err != nil {
		return nil, err
	}
	l.setParent(key, parent)
	return joinMounts(upper, view), nil
}

// joinMounts puts the lowers of a view under the upper of an extract snapshot.
func joinMounts(upper, view []mount.Mount) []mount.Mount {
	if view[0].Type != "overlay" {
		return upper
	}
	var lower string
	for _, o := range view[0].Options {
		if strings.HasPrefix(o, "lowerdir=") {
			lower = o
		}
	}
	options := slices.DeleteFunc(slices.Clone(upper[0].Options), func(o string) bool { return strings.HasPrefix(o, "lowerdir=") })
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: append(options, lower)}}
}

// Commit implements snapshots.Snapshotter.
func (l *LateParent) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	parent := l.parent(key)
	if err := l.Snapshotter.Commit(ctx, name, key, append(slices.Clone(opts), snapshots.WithParent(parent))...); err != nil || parent == "" {
		return err
	}
	l.setParent(key, "")
	return l.Snapshotter.Remove(ctx, key+viewSuffix)
}

// Remove implements snapshots.Snapshotter.
func (l *LateParent) Remove(ctx context.Context, key string) error {
	if err := l.Snapshotter.Remove(ctx, key); err != nil || l.parent(key) == "" {
		return err
	}
	l.setParent(key, "")
	return l.Snapshotter.Remove(ctx, key+viewSuffix)
}

func (l *LateParent) pretend(info snapshots.Info) snapshots.Info {
	if p := l.parent(info.Name); p != "" {
		info.Parent = p
		if strings.HasPrefix(info.Labels[snapshots.LabelSnapshotRef], "ref of ") {
			delete(info.Labels, snapshots.LabelSnapshotRef)
		}
	}
	return info
}

// Stat implements snapshots.Snapshotter.
func (l *LateParent) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	info, err := l.Snapshotter.Stat(ctx, key)
	return l.pretend(info), err
}

// Update implements snapshots.Snapshotter.
func (l *LateParent) Update(ctx context.Context, info snapshots.Info, paths ...string) (snapshots.Info, error) {
	info, err := l.Snapshotter.Update(ctx, info, paths...)
	return l.pretend(info), err
}

// Walk implements snapshots.Snapshotter.
func (l *LateParent) Walk(ctx context.Context, fn snapshots.WalkFunc, fs ...string) error {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return err
	}
	return l.Snapshotter.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		info = l.pretend(info)
		if strings.HasSuffix(info.Name, viewSuffix) || !filter.Match(adapt(info)) {
			return nil
		}
		return fn(ctx, info)
	})
}

func adapt(info snapshots.Info) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		switch path[0] {
		case "name":
			return info.Name, true
		case "parent":
			return info.Parent, true
		case "kind":
			return strings.ToLower(info.Kind.String()), true
		}
		v, ok := info.Labels[strings.Join(path[1:], ".")]
		return v, ok
	})
}
