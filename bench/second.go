// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// secondSetting is what a node has before it pulls an image that shares layers with
// one that it has.
type secondSetting struct {
	name string
	// enter brings a side from the setting before to this one.
	enter func(ctx context.Context, s *side, first, base *pullable) error
	// strict: the shared layers must not be fetched. Where the lowest layer is missing,
	// containerd starts to fetch all layers at once, and stops when it learns that
	// some are there.
	strict bool
}

var secondSettings = []secondSetting{
	{
		name:   "kept",
		strict: true,
		enter:  func(context.Context, *side, *pullable, *pullable) error { return nil },
	},
	{
		name:  "discarded",
		enter: func(ctx context.Context, s *side, first, _ *pullable) error { return s.discardLayers(ctx, first) },
	},
	{
		name:   "known-base",
		strict: true,
		enter: func(ctx context.Context, s *side, _, base *pullable) error {
			if err := s.pull(ctx, base); err != nil {
				return err
			}
			return s.discardLayers(ctx, base)
		},
	},
}

// unpackMode is how many layers containerd unpacks at once.
type unpackMode struct {
	name    string
	unpacks int
}

var unpackModes = []unpackMode{{"seq", 1}, {"par", unpacks}}

func secondName(setting secondSetting, mode unpackMode) string {
	return "second/" + setting.name + "/" + mode.name
}

// secondRun is one pull of the second image.
type secondRun struct {
	wall    time.Duration
	fetched int64 // bytes of the shared layers
	grown   int64 // bytes on disk
}

// secondImage pulls an image whose three big layers another image has brought, on
// another base.
func (s *sharing) secondImage(ctx context.Context) error {
	big := s.named("b", "c", "d")
	first, err := s.registry.publish("first", append(s.named("base-a"), big...))
	if err != nil {
		return err
	}
	second, err := s.registry.publish("second", append(s.named("base-b"), big...))
	if err != nil {
		return err
	}
	base, err := s.registry.publish("base", s.named("base-b"))
	if err != nil {
		return err
	}
	if err := s.eachSide(func(side *side) error { return side.pull(ctx, first) }); err != nil {
		return err
	}
	for _, setting := range secondSettings {
		err := s.eachSide(func(side *side) error {
			return errors.Join(setting.enter(ctx, side, first, base), side.settle())
		})
		if err != nil {
			return err
		}
		for _, mode := range unpackModes {
			if err := s.secondIn(ctx, setting, mode, second, big); err != nil {
				return err
			}
		}
	}
	return nil
}

// secondIn measures one setting in one mode.
func (s *sharing) secondIn(ctx context.Context, setting secondSetting, mode unpackMode, p *pullable, shared []*layer) error {
	name := secondName(setting, mode)
	if !s.o.run.MatchString(name) {
		return nil
	}
	if err := s.eachSide(func(side *side) error { return side.restart(ctx, mode.unpacks, s.o.durability) }); err != nil {
		return err
	}
	var runs [2][]secondRun
	var differences []string
	for i := range s.o.pairs {
		for n, side := range s.sides {
			run, err := s.secondRun(ctx, side, p, shared)
			if err != nil {
				return err
			}
			runs[n] = append(runs[n], run)
		}
		if i == 0 {
			var err error
			if differences, err = comparePulled(ctx, s.dir, s.sides, p); err != nil {
				return fmt.Errorf("comparing the trees: %w", err)
			}
		}
		if err := s.eachSide(func(side *side) error { return side.deleteImage(ctx, p) }); err != nil {
			return err
		}
	}
	s.reportSecond(name, setting, runs, differences)
	return nil
}

func (s *sharing) secondRun(ctx context.Context, side *side, p *pullable, shared []*layer) (run secondRun, err error) {
	before, err := diskUsage(side.snapshotRoot())
	if err != nil {
		return run, err
	}
	s.registry.reset()
	start := time.Now()
	if err := byTransfer(inNamespace(ctx), side, p); err != nil {
		return run, fmt.Errorf("%s: %w", side.name, err)
	}
	run.wall = time.Since(start)
	run.fetched = s.registry.servedOf(shared)
	if err := errors.Join(side.checkUnpacked(inNamespace(ctx), p), side.fs.flush()); err != nil {
		return run, fmt.Errorf("%s: %w", side.name, err)
	}
	after, err := diskUsage(side.snapshotRoot())
	run.grown = after - before
	return run, err
}

func (s *sharing) reportSecond(name string, setting secondSetting, runs [2][]secondRun, differences []string) {
	var wall, fetched, grown [2][]float64
	for i := range runs {
		for _, run := range runs[i] {
			wall[i] = append(wall[i], wallMS(sample{Wall: run.wall}))
			fetched[i] = append(fetched[i], mib(run.fetched))
			grown[i] = append(grown[i], mib(run.grown))
		}
	}
	s.report.add(figure{
		name: name + " wall", unit: "ms", values: wall, goal: s.asked(ratioAtLeast, 20),
		note: treesNote(differences), failures: differences,
	})
	f := figure{
		name: name + " fetched", unit: "MiB", values: fetched, goal: goal{strataAtMost, 0},
		note: "of the shared layers",
	}
	if most := spreadOf(fetched[1]).Max; setting.strict && most > 0 {
		f.failures = []string{fmt.Sprintf("%.1f MiB of the shared layers were fetched again", most)}
	}
	s.report.add(f)
	f = figure{name: name + " written", unit: "MiB", values: grown, note: "growth of the snapshotter's directory"}
	// The base is a small part of what containerd adds.
	if ours, theirs := spreadOf(grown[1]).Max, spreadOf(grown[0]).Min; ours > theirs/4 {
		f.failures = []string{fmt.Sprintf("shared layers were extracted again: %.1f MiB more, where containerd has %.1f", ours, theirs)}
	}
	s.report.add(f)
}

func treesNote(differences []string) string {
	if len(differences) > 0 {
		return fmt.Sprintf("%d DIFFERENCES of the trees", len(differences))
	}
	return "trees are equal"
}
