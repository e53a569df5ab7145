// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// operations are measured one after the other: each in a phase of its own, so that its
// rate is its own.
var operations = []string{"prepare", "commit", "remove"}

const commitPhase = 1

// perPhase is how many of one operation the clients do before the next one's turn. It
// adds little to the smallest number of snapshots.
const perPhase = 80

// opRun is what some rounds of all operations took, by operation.
type opRun struct {
	wall  [3]time.Duration
	times [3][]time.Duration // of each call
}

func (r *opRun) rate(op int) float64 { return float64(len(r.times[op])) / r.wall[op].Seconds() }

// quantile is that of the calls' times, in milliseconds.
func (r *opRun) quantile(op int, q float64) float64 {
	v := slices.Sorted(slices.Values(r.times[op]))
	return wallMS(sample{Wall: v[int(q*float64(len(v)-1))]})
}

// operate does rounds of all operations with eight clients at once on a snapshotter
// that has so many snapshots, and leaves it as it was.
func (s *opStore) operate(ctx context.Context, rounds, filled int) (*opRun, error) {
	run := &opRun{}
	for range rounds {
		if err := s.round(ctx, run, filled); err != nil {
			return nil, err
		}
	}
	return run, s.cleanup(ctx)
}

// round makes layers on top of those that are there, and takes them away again.
func (s *opStore) round(ctx context.Context, run *opRun, filled int) error {
	made := make([]opSnapshot, perPhase)
	for i := range made {
		// On the tops of images all over the store.
		image := s.serial * 31 % (filled / chainLength)
		made[i] = opSnapshot{s.serial, image*chainLength + chainLength - 1}
		s.serial++
	}
	dirs := make([]string, perPhase)
	phases := []func(ctx context.Context, i int) error{
		func(ctx context.Context, i int) error {
			mounts, err := s.Prepare(ctx, made[i].key(), made[i].parent(), made[i].labels())
			if err == nil {
				dirs[i], err = upperDir(mounts)
			}
			return err
		},
		func(ctx context.Context, i int) error {
			if s.syncs {
				if err := with(dirs[i], unix.Syncfs); err != nil {
					return err
				}
			}
			return s.Commit(ctx, made[i].name(), made[i].key(), made[i].labels())
		},
		func(ctx context.Context, i int) error { return s.Remove(ctx, made[i].name()) },
	}
	for op, do := range phases {
		if op == commitPhase {
			for _, dir := range dirs {
				if err := putFile(dir); err != nil {
					return err
				}
			}
		}
		if err := run.phase(ctx, op, do); err != nil {
			return err
		}
	}
	return nil
}

// phase lets eight clients share perPhase calls.
func (r *opRun) phase(ctx context.Context, op int, do func(ctx context.Context, i int) error) error {
	times := make([]time.Duration, perPhase)
	var next atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	start := time.Now()
	for range eight {
		group.Go(func() error {
			for i := int(next.Add(1)) - 1; i < perPhase; i = int(next.Add(1)) - 1 {
				begin := time.Now()
				if err := do(groupCtx, i); err != nil {
					return err
				}
				times[i] = time.Since(begin)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	r.wall[op] += time.Since(start)
	r.times[op] = append(r.times[op], times...)
	return nil
}
