// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// namespace is containerd's that everything is done in.
const namespace = "crash"

// client does one thing after another, as containerd would ask for it.
type client struct {
	*run
	random *rand.Rand
	mounts string // directory to mount at
}

// loop works until quiet is closed. After it happened calls fail, which is no finding.
func (c *client) loop(ctx context.Context) {
	for {
		select {
		case <-c.quiet:
			return
		default:
		}
		if err := c.step(ctx); err != nil {
			if !c.over.Load() {
				c.report.found(failure, "%v", err)
			}
			return
		}
	}
}

func (c *client) step(ctx context.Context) error {
	switch n := c.random.IntN(100); {
	case n < 30:
		return c.pull(ctx, c.image())
	case n < 55:
		return c.pullParallel(ctx, c.image())
	case n < 80:
		return c.container(ctx)
	case n < 97:
		return c.remove(ctx)
	}
	return c.callCleanup(ctx)
}

func (c *client) image() *image { return c.pool.images[c.random.IntN(len(c.pool.images))] }

// remove removes a snapshot that nothing stands on.
func (c *client) remove(ctx context.Context) error {
	s := c.registry.take(c.random)
	if s == nil {
		return nil
	}
	if err := c.daemon.sn.Remove(ctx, s.name); err != nil {
		return fmt.Errorf("remove %s: %w", s.name, err)
	}
	c.registry.removed(s)
	return nil
}

// pull unpacks an image one layer after another.
func (c *client) pull(ctx context.Context, img *image) error {
	var parent *snapshot
	for i := range img.layers {
		next, err := c.onto(ctx, img, i, parent)
		c.registry.unpin(parent)
		if err != nil {
			return fmt.Errorf("layer %s: %w", img.layers[i].name, err)
		}
		parent = next
	}
	c.registry.unpin(parent)
	return nil
}

// onto unpacks layer i onto its parent, and returns the snapshot pinned.
func (c *client) onto(ctx context.Context, img *image, i int, parent *snapshot) (*snapshot, error) {
	defer c.chains.lock(img.chainIDs[i])()
	if s := c.registry.find(img.chainIDs[i]); s != nil {
		return s, nil
	}
	e, err := c.prepare(ctx, img, i, parent)
	if err != nil || e.done != nil {
		return e.done, err
	}
	return c.commit(ctx, e, parent)
}

// extraction is a snapshot that a layer is unpacked into.
type extraction struct {
	img  *image
	i    int
	key  *snapshot
	opt  snapshots.Opt
	done *snapshot // set if there is nothing more to do
}

// errReplaced is that the snapshot that a Prepare found is gone again.
var errReplaced = errors.New("somebody removes the snapshot that was found")

// prepare makes the snapshot, and extracts the layer into it unless it is there.
func (c *client) prepare(ctx context.Context, img *image, i int, parent *snapshot) (e extraction, err error) {
	for range 100 {
		e, err = c.prepareOnce(ctx, img, i, parent)
		if !errors.Is(err, errReplaced) {
			return e, err
		}
		c.registry.set(e.key, gone)
		time.Sleep(5 * time.Millisecond)
	}
	return e, err
}

func (c *client) prepareOnce(ctx context.Context, img *image, i int, parent *snapshot) (e extraction, err error) {
	e = extraction{img: img, i: i, opt: snapshots.WithLabels(img.labels(i))}
	parentName := ""
	if parent != nil {
		parentName = parent.name
	}
	e.key = c.registry.ask(&snapshot{
		name: c.registry.name("extract-1-x " + img.chainIDs[i].String()), chain: img.layers[:i+1], parent: parent, chainID: img.chainIDs[i], pins: 1,
	})
	mounts, err := c.daemon.sn.Prepare(ctx, e.key.name, parentName, e.opt)
	if errdefs.IsAlreadyExists(err) {
		e.done, err = c.shared(ctx, e, parentName)
		return e, err
	}
	if err != nil {
		return e, fmt.Errorf("prepare: %w", err)
	}
	c.registry.set(e.key, active)
	if len(mounts) > 0 && mounts[len(mounts)-1].ReadOnly() {
		return e, nil // staged
	}
	return e, c.apply(ctx, img.layers[i], mounts)
}

func (c *client) apply(ctx context.Context, l *layer, mounts []mount.Mount) error {
	got, err := c.daemon.diff.Apply(ctx, l.desc, mounts)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if got.Digest != l.diffID {
		return fmt.Errorf("apply: diffID %s, want %s", got.Digest, l.diffID)
	}
	return nil
}

// labels are those that containerd's unpacker gives an extraction.
func (img *image) labels(i int) map[string]string {
	labels := map[string]string{
		snapshots.LabelSnapshotRef:    img.chainIDs[i].String(),
		snapshots.LabelSnapshotDiffID: img.layers[i].diffID.String(),
	}
	if i > 0 {
		labels["containerd.io/snapshot/parent-chain-id"] = img.chainIDs[i-1].String()
	}
	return labels
}

// shared looks the snapshot up that a Prepare found or made of a layer that was there,
// as containerd does.
func (c *client) shared(ctx context.Context, e extraction, parent string) (*snapshot, error) {
	name := ""
	filter := fmt.Sprintf("labels.%q==%s,parent==%q", snapshots.LabelSnapshotRef, e.key.chainID, parent)
	err := c.daemon.sn.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted {
			name = info.Name
		}
		return nil
	}, filter)
	if err != nil {
		return nil, fmt.Errorf("look the shared snapshot up: %w", err)
	}
	if name != e.key.name {
		return nil, fmt.Errorf("prepare %s: %q is there: %w", e.key.name, name, errReplaced)
	}
	s := c.registry.commit(e.key)
	c.registry.unpin(s) // as an extraction
	return s, nil
}

// commit commits an extraction on its parent, which may not have been known before.
func (c *client) commit(ctx context.Context, e extraction, parent *snapshot) (*snapshot, error) {
	opts := []snapshots.Opt{e.opt}
	if parent != nil {
		opts = append(opts, snapshots.WithParent(parent.name))
	}
	s := c.registry.ask(&snapshot{
		name: c.registry.name(e.key.chainID.String()), chain: e.key.chain, chainID: e.key.chainID, parent: parent, from: e.key,
	})
	c.registry.set(e.key, leaving)
	if err := c.daemon.sn.Commit(ctx, s.name, e.key.name, opts...); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return c.registry.commit(s), nil
}

// pullParallel unpacks the layers of an image at the same time, each without its parent.
func (c *client) pullParallel(ctx context.Context, img *image) error {
	defer c.chains.lock(img.chainIDs...)()
	var parent *snapshot
	first := 0
	for ; first < len(img.layers); first++ {
		next := c.registry.find(img.chainIDs[first])
		if next == nil {
			break
		}
		c.registry.unpin(parent)
		parent = next
	}
	defer func() { c.registry.unpin(parent) }()
	all, err := c.prepareAll(ctx, img, first)
	for _, e := range all {
		if err != nil {
			return err
		}
		next := e.done
		if next == nil {
			if next, err = c.commit(ctx, e, parent); err != nil {
				return fmt.Errorf("layer %s: %w", img.layers[e.i].name, err)
			}
		}
		c.registry.unpin(parent)
		parent = next
	}
	return err
}

func (c *client) prepareAll(ctx context.Context, img *image, first int) ([]extraction, error) {
	all := make([]extraction, len(img.layers)-first)
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			all[i], errs[i] = c.prepare(ctx, img, first+i, nil)
			if errs[i] != nil {
				errs[i] = fmt.Errorf("layer %s without its parent: %w", img.layers[first+i].name, errs[i])
			}
		})
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

// chainLocks let one client at a time make the snapshot of a chain.
type chainLocks struct {
	mu    sync.Mutex
	locks map[digest.Digest]*sync.Mutex
}

// lock locks chains, which are in the order of their length: so nobody waits for
// another who waits for him.
func (l *chainLocks) lock(chains ...digest.Digest) (unlock func()) {
	locks := make([]*sync.Mutex, 0, len(chains))
	for _, id := range chains {
		lock := l.of(id)
		lock.Lock()
		locks = append(locks, lock)
	}
	return func() {
		for _, lock := range locks {
			lock.Unlock()
		}
	}
}

func (l *chainLocks) of(id digest.Digest) *sync.Mutex {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.locks == nil {
		l.locks = map[digest.Digest]*sync.Mutex{}
	}
	if l.locks[id] == nil {
		l.locks[id] = &sync.Mutex{}
	}
	return l.locks[id]
}
