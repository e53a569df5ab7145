// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// singles is how often a call is repeated that is measured one at a time.
const singles = 20

// lookUp finds a snapshot by its reference and its parent, as containerd does it when a
// snapshotter says that it has the layer already.
func (b *opBench) lookUp(ctx context.Context, filled int) error {
	values, err := b.repeat(singles, func(s *opStore, n int) (time.Duration, error) {
		wanted := filler(n * 7919 % filled)
		filter := fmt.Sprintf("labels.%q==%s,parent==%q", snapshots.LabelSnapshotRef, chainOf(wanted.i), wanted.parent())
		var found []string
		start := time.Now()
		err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			found = append(found, info.Name)
			return nil
		}, filter)
		elapsed := time.Since(start)
		if err == nil && (len(found) != 1 || found[0] != wanted.name()) {
			err = fmt.Errorf("found %q, not %q", found, wanted.name())
		}
		return elapsed, err
	})
	if err != nil {
		return err
	}
	b.report.add(figure{
		name: fmt.Sprintf("look-up by reference/%d", filled), unit: "ms", values: values,
		goal: goal{strataAtMost, 1}, note: "one client, median",
	})
	return nil
}

// removeSynchronously measures Remove where it deletes the files before it answers.
func (b *opBench) removeSynchronously(ctx context.Context, filled int) error {
	for _, s := range b.stores {
		if err := s.reopen(ctx, b.o.durability, synchronous); err != nil {
			return err
		}
	}
	values, err := b.repeat(singles, func(s *opStore, _ int) (time.Duration, error) {
		layer := opSnapshot{s.serial, -1}
		s.serial++
		if err := s.make(ctx, layer); err != nil {
			return 0, err
		}
		start := time.Now()
		err := s.Remove(ctx, layer.name())
		elapsed := time.Since(start)
		if _, statErr := s.Stat(ctx, layer.name()); statErr == nil {
			err = errors.Join(err, fmt.Errorf("%s is still there", layer.name()))
		}
		return elapsed, err
	})
	if err != nil {
		return err
	}
	b.report.add(figure{
		name: fmt.Sprintf("synchronous remove/%d", filled), unit: "ms", values: values,
		goal: goal{strataAtMost, 1}, note: "one client, median",
	})
	return nil
}
