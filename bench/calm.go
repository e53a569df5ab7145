// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sync/errgroup"
)

// calmBench measures how long Prepare and Mounts take while many snapshots are removed
// and large layers deleted, against when nothing else is done.
type calmBench struct {
	o       options
	report  *figures
	files   int // of a layer
	layers  int // that many snapshots stand on each their share of
	removed int // snapshots
	probes  int // calls while nothing else is done
	serial  int
}

func measureCalm(ctx context.Context, o options, dir string, report *figures) (err error) {
	b := &calmBench{o: o, report: report, files: 60_000, layers: 3, removed: 1000, probes: 1000}
	if o.quick {
		b.files, b.removed, b.probes = 3000, 60, 100
	}
	var idle, busy [2][2][]float64 // by operation and side
	for i, side := range newSides(o) {
		s := &opStore{side: side}
		for range o.pairs {
			calm, during, err := b.one(ctx, s, filepath.Join(dir, s.name))
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			for op := range calmOperations {
				idle[op][i] = append(idle[op][i], calm.p99(op))
				busy[op][i] = append(busy[op][i], during.p99(op))
			}
		}
	}
	for op, name := range calmOperations {
		var ratios [2][]float64
		for i := range ratios {
			for n := range idle[op][i] {
				ratios[i] = append(ratios[i], busy[op][i][n]/idle[op][i][n])
			}
		}
		report.add(figure{name: "calm/" + name + " p99 idle", unit: "ms", values: idle[op]})
		report.add(figure{name: "calm/" + name + " p99 busy", unit: "ms", values: busy[op]})
		report.add(figure{
			name: "calm/" + name + " busy by idle", values: ratios, goal: goal{strataAtMost, 3},
			note: fmt.Sprintf("%d removals, %d layers of %d files", b.removed, b.layers, b.files),
		})
	}
	return nil
}

var calmOperations = []string{"prepare", "mounts"}

// calmTimes are those of the calls, by operation.
type calmTimes [2][]time.Duration

// p99 is in milliseconds.
func (c *calmTimes) p99(op int) float64 {
	v := slices.Sorted(slices.Values(c[op]))
	return wallMS(sample{Wall: v[int(0.99*float64(len(v)-1))]})
}

// one makes a store, measures it at rest, and then while it is emptied.
func (b *calmBench) one(ctx context.Context, s *opStore, dir string) (calm, during calmTimes, err error) {
	if s.fs, err = newFilesystem(ctx, b.o, dir); err != nil {
		return calm, during, err
	}
	defer func() { err = errors.Join(err, s.closeStore(), s.close(), os.RemoveAll(dir)) }()
	if err := s.openStore(ctx, b.o.durability, inBackground); err != nil {
		return calm, during, err
	}
	if err := b.fill(ctx, s); err != nil {
		return calm, during, err
	}
	if err := s.fs.flush(); err != nil {
		return calm, during, err
	}
	for range b.probes {
		if err := b.probe(ctx, s, &calm); err != nil {
			return calm, during, err
		}
	}
	during, err = b.whileEmptied(ctx, s)
	return calm, during, err
}

func calmLayer(i int) string { return fmt.Sprintf("k8s.io/%d/calm-layer-%d", i, i) }

func calmContainer(i int) string { return fmt.Sprintf("k8s.io/%d/calm-container-%d", 1000+i, i) }

// calmKept is what is prepared on: it stays.
const calmKept = "k8s.io/900/calm-kept"

func (b *calmBench) fill(ctx context.Context, s *opStore) error {
	for i := range b.layers {
		if err := b.layer(ctx, s, calmLayer(i), b.files); err != nil {
			return err
		}
	}
	if err := b.layer(ctx, s, calmKept, 10); err != nil {
		return err
	}
	for i := range b.removed {
		mounts, err := s.Prepare(ctx, calmContainer(i), calmLayer(i%b.layers))
		if err != nil {
			return err
		}
		dir, err := upperDir(mounts)
		if err != nil {
			return err
		}
		if err := manyFiles(dir, 20); err != nil {
			return err
		}
	}
	return nil
}

func (b *calmBench) layer(ctx context.Context, s *opStore, name string, files int) error {
	mounts, err := s.Prepare(ctx, name+"-active", "")
	if err != nil {
		return err
	}
	dir, err := upperDir(mounts)
	if err != nil {
		return err
	}
	return errors.Join(manyFiles(dir, files), s.Commit(ctx, name, name+"-active"))
}

// manyFiles makes small files, a hundred in a directory.
func manyFiles(dir string, files int) error {
	for i := range files {
		sub := filepath.Join(dir, fmt.Sprint(i/100))
		if i%100 == 0 {
			if err := os.Mkdir(sub, 0o755); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), []byte("a small file\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// probe is one call of each operation.
func (b *calmBench) probe(ctx context.Context, s *opStore, times *calmTimes) error {
	key := fmt.Sprintf("k8s.io/%d/calm-probe", 10_000+b.serial)
	b.serial++
	calls := []func() error{
		func() error { _, err := s.Prepare(ctx, key, calmKept); return err },
		func() error { _, err := s.Mounts(ctx, key); return err },
	}
	for op, call := range calls {
		begin := time.Now()
		if err := call(); err != nil {
			return err
		}
		times[op] = append(times[op], time.Since(begin))
	}
	return nil
}

// whileEmptied calls until everything is removed and deleted.
func (b *calmBench) whileEmptied(ctx context.Context, s *opStore) (during calmTimes, err error) {
	emptied := make(chan struct{})
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(emptied)
		return b.empty(groupCtx, s)
	})
	group.Go(func() error {
		for {
			if err := b.probe(groupCtx, s, &during); err != nil {
				return err
			}
			select {
			case <-emptied:
				return nil
			default:
			}
		}
	})
	return during, group.Wait()
}

func (b *calmBench) empty(ctx context.Context, s *opStore) error {
	for i := range b.removed {
		if err := s.Remove(ctx, calmContainer(i)); err != nil {
			return err
		}
	}
	for i := range b.layers {
		if err := s.Remove(ctx, calmLayer(i)); err != nil {
			return err
		}
	}
	cleaner, ok := s.Snapshotter.(snapshots.Cleaner)
	if !ok {
		return errors.New("no Cleanup")
	}
	return cleaner.Cleanup(ctx)
}
