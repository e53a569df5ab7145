// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// benchmark measures all scenarios: those of one durability of Strata's with the same
// daemons, on file systems that are fresh for them.
func benchmark(ctx context.Context, o options, c *corpus, dir string, out io.Writer) (err error) {
	scenarios := c.scenarios(o.run)
	if len(scenarios) == 0 {
		return fmt.Errorf("%s has the layers of no scenario that matches", o.corpus)
	}
	if o.strata == "" {
		o.strata = filepath.Join(dir, "containerd-strata-grpc")
		if err := build(ctx, o.strata); err != nil {
			return err
		}
	}
	report := newReport(o, out)
	// Also of what an interrupt has left undone.
	defer func() { err = errors.Join(err, report.finish()) }()
	for _, durability := range []string{"none", "commit"} {
		var group []scenario
		for _, s := range scenarios {
			if s.mode.durability == durability {
				group = append(group, s)
			}
		}
		if err := runGroup(ctx, o, c, dir, durability, group, report); err != nil {
			return err
		}
	}
	return nil
}

// build makes the daemon as it is shipped: without the race detector.
func build(ctx context.Context, output string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", output, "./cmd/containerd-strata-grpc")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building the daemon (start this in the checkout): %w", err)
	}
	return nil
}

func runGroup(ctx context.Context, o options, c *corpus, dir, durability string, group []scenario, report *report) (err error) {
	if len(group) == 0 {
		return nil
	}
	sides := newSides(o)
	defer func() {
		for _, s := range sides {
			if o.keep {
				s.printLogs()
			}
			err = errors.Join(err, s.close(), os.RemoveAll(filepath.Join(dir, s.name)))
		}
	}()
	for _, s := range sides {
		if err := s.open(ctx, o, dir, durability, c, group); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for _, sc := range group {
		result := runScenario(ctx, o, c, dir, sides, sc)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report.add(result)
		for _, s := range sides {
			for _, d := range s.daemons {
				if err := d.ended(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *side) printLogs() {
	for _, d := range s.daemons {
		text, err := os.ReadFile(d.log)
		fmt.Fprintf(os.Stderr, "--- %s of %s (%v)\n%s", d.name, s.name, err, text)
	}
}

// runScenario never fails: a failure is a result too.
func runScenario(ctx context.Context, o options, c *corpus, dir string, sides [2]*side, sc scenario) *result {
	r := &result{scenario: sc}
	for _, s := range sides {
		// A daemon keeps some of the memory that an earlier scenario made it take.
		if err := errors.Join(s.stop(), s.start(ctx), s.warm(c, sc)); err != nil {
			r.fail(err)
			return r
		}
	}
	implicit, err := c.implicit(sc)
	if err == nil {
		sc.bytes, err = c.bytes(sc)
	}
	if err != nil {
		r.fail(err)
		return r
	}
	for i := range o.pairs {
		compare := func(context.Context, [2]*unpacked) error { return nil }
		if i == 0 {
			compare = func(ctx context.Context, pair [2]*unpacked) (err error) {
				r.Differences, r.Known, err = compareTrees(ctx, dir, pair, implicit)
				return err
			}
		}
		if err := runPair(ctx, sides, sc, r, compare); err != nil {
			r.fail(err)
			return r
		}
	}
	return r
}

// runPair measures both sides, one after the other, and lets compare look at what they
// made before it goes.
func runPair(ctx context.Context, sides [2]*side, sc scenario, r *result, compare func(context.Context, [2]*unpacked) error) (err error) {
	var pair [2]*unpacked
	defer func() {
		for _, u := range pair {
			if u != nil {
				err = errors.Join(err, u.remove(context.WithoutCancel(ctx)))
			}
		}
	}()
	for i, s := range sides {
		if err := backMemory(10 * sc.bytes); err != nil {
			return err
		}
		if pair[i], err = s.unpack(ctx, sc); err != nil {
			return err
		}
		if err := s.fs.flush(); err != nil {
			return err
		}
	}
	if err := compare(ctx, pair); err != nil {
		return fmt.Errorf("comparing the trees: %w", err)
	}
	for i, u := range pair {
		r.samples[i] = append(r.samples[i], u.sample)
	}
	return nil
}
