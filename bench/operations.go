// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// opBench measures operations on snapshots while there are more and more of them.
type opBench struct {
	o      options
	report *figures
	stores [2]*opStore
	rounds int
	sizes  []int
	p99    map[int]*[3][2]float64 // medians, by size, operation and side
}

func measureOperations(ctx context.Context, o options, dir string, report *figures) (err error) {
	b := &opBench{o: o, report: report, rounds: 12, sizes: []int{100, 10_000, 100_000}, p99: map[int]*[3][2]float64{}}
	if o.quick {
		b.rounds, b.sizes = 3, []int{100, 2000}
	}
	for i, side := range newSides(o) {
		b.stores[i] = &opStore{side: side, serial: firstSerial}
	}
	defer func() {
		for _, s := range b.stores {
			err = errors.Join(err, s.closeStore(), s.close(), os.RemoveAll(filepath.Join(dir, s.name)))
		}
	}()
	for _, s := range b.stores {
		if s.fs, err = newFilesystem(ctx, o, filepath.Join(dir, s.name)); err != nil {
			return err
		}
	}
	if err := b.run(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report.fail("operations", err)
	}
	return nil
}

// firstSerial keeps the names of what is measured away from those that fill the store.
const firstSerial = 1_000_000

func (b *opBench) run(ctx context.Context) error {
	filled := 0
	for _, size := range b.sizes {
		for _, s := range b.stores {
			if err := errors.Join(s.fill(ctx, filled, size), s.reopen(ctx, b.o.durability, inBackground)); err != nil {
				return fmt.Errorf("%s: making %d snapshots: %w", s.name, size, err)
			}
		}
		filled = size
		if err := b.atSize(ctx, size); err != nil {
			return fmt.Errorf("with %d snapshots: %w", size, err)
		}
	}
	b.reportFlat()
	if err := b.database(filled); err != nil {
		return err
	}
	if err := b.lookUp(ctx, filled); err != nil {
		return fmt.Errorf("look-up: %w", err)
	}
	if err := b.removeSynchronously(ctx, filled); err != nil {
		return fmt.Errorf("synchronous removal: %w", err)
	}
	return nil
}

func (b *opBench) atSize(ctx context.Context, size int) error {
	for _, s := range b.stores {
		// What was just started has caches to fill.
		if _, err := s.operate(ctx, 1, size); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	runs, err := b.inTurns(ctx, size)
	if err != nil {
		return err
	}
	b.reportSize(size, runs)
	if b.o.durability == "none" {
		return nil
	}
	theirs := b.stores[0]
	theirs.syncs = true
	defer func() { theirs.syncs = false }()
	if runs, err = b.inTurns(ctx, size); err != nil {
		return err
	}
	b.reportSynced(size, runs)
	return nil
}

// inTurns measures both sides, one after the other, as often as there are pairs.
func (b *opBench) inTurns(ctx context.Context, size int) (runs [2][]*opRun, err error) {
	for range b.o.pairs {
		for i, s := range b.stores {
			run, err := s.operate(ctx, b.rounds, size)
			if err != nil {
				return runs, fmt.Errorf("%s: %w", s.name, err)
			}
			runs[i] = append(runs[i], run)
		}
	}
	return runs, nil
}

func (b *opBench) reportSize(size int, runs [2][]*opRun) {
	b.p99[size] = &[3][2]float64{}
	for op, name := range operations {
		for i, v := range b.reportOne(fmt.Sprintf("%s/%d", name, size), op, runs) {
			b.p99[size][op][i] = spreadOf(v).Median
		}
	}
}

// reportSynced is about Commit where both sides make the layer durable.
func (b *opBench) reportSynced(size int, runs [2][]*opRun) {
	b.reportOne(fmt.Sprintf("commit, both sync/%d", size), commitPhase, runs)
}

func (b *opBench) reportOne(name string, op int, runs [2][]*opRun) (p99 [2][]float64) {
	var rate, p50 [2][]float64
	for i := range runs {
		for _, run := range runs[i] {
			rate[i] = append(rate[i], run.rate(op))
			p50[i] = append(p50[i], run.quantile(op, 0.5))
			p99[i] = append(p99[i], run.quantile(op, 0.99))
		}
	}
	b.report.add(figure{name: name, unit: perSecond, values: rate, goal: goal{ratioAtLeast, 2}})
	b.report.add(figure{name: name + " p50", unit: "ms", values: p50})
	b.report.add(figure{name: name + " p99", unit: "ms", values: p99})
	return p99
}

// reportFlat compares the slowest calls with most snapshots with those with fewest.
func (b *opBench) reportFlat() {
	first, last := b.sizes[0], b.sizes[len(b.sizes)-1]
	for op, name := range operations {
		var growth [2][]float64
		for i := range growth {
			growth[i] = []float64{b.p99[last][op][i] / b.p99[first][op][i]}
		}
		b.report.add(figure{
			name: name + " p99 growth", values: growth, goal: goal{strataAtMost, 2},
			note: fmt.Sprintf("%d snapshots by %d", last, first),
		})
	}
}

func (b *opBench) database(size int) error {
	var sizes [2][]float64
	for i, s := range b.stores {
		n, err := s.database()
		if err != nil {
			return err
		}
		sizes[i] = []float64{float64(n) / 1e6}
	}
	// A small one is as large as the smallest piece that it grows by.
	limit := goal{}
	if size >= 100_000 {
		limit = goal{strataAtMost, 60 * float64(size) / 100_000}
	}
	b.report.add(figure{name: fmt.Sprintf("metadata.db/%d", size), unit: "MB", values: sizes, goal: limit})
	return nil
}

// repeat measures a call some times on both sides, in turns, by its median.
func (b *opBench) repeat(times int, do func(s *opStore, n int) (time.Duration, error)) (values [2][]float64, err error) {
	for pair := range b.o.pairs {
		for i, s := range b.stores {
			var all []float64
			for n := range times {
				d, err := do(s, pair*times+n)
				if err != nil {
					return values, fmt.Errorf("%s: %w", s.name, err)
				}
				all = append(all, wallMS(sample{Wall: d}))
			}
			values[i] = append(values[i], spreadOf(all).Median)
		}
	}
	return values, nil
}
