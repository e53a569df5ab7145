// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

const tenCount = 10

// tenImages pulls images that have the same layers in different orders, and measures
// what the snapshotter has on disk then.
func (s *sharing) tenImages(ctx context.Context) error {
	var all []*pullable
	for i := range tenCount {
		p, err := s.registry.publish(fmt.Sprintf("ten-%d", i), s.order(i))
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	for _, p := range all {
		if err := s.eachSide(func(side *side) error { return side.pull(ctx, p) }); err != nil {
			return err
		}
	}
	// The first and the last, whose bases differ, and whose orders are each other's
	// reverse or nearly so.
	var differences []string
	for _, p := range []*pullable{all[0], all[tenCount-1]} {
		found, err := comparePulled(ctx, s.dir, s.sides, p)
		if err != nil {
			return fmt.Errorf("comparing the trees: %w", err)
		}
		differences = append(differences, found...)
	}
	distinct, err := s.distinct(ctx, all)
	if err != nil {
		return err
	}
	return s.reportTen(distinct, differences)
}

// order is the i-th image's layers: rotated further by one each time, and once all
// rotations are there, the other way round.
func (s *sharing) order(i int) []*layer {
	layers := s.named(sharedLayers...)
	turn := i % len(layers)
	layers = append(layers[turn:], layers[:turn]...)
	if i >= len(layers) {
		slices.Reverse(layers)
	}
	base := bases[i%len(bases)]
	return append(s.named(base.name), layers...)
}

// distinct is the sum over all layers of what containerd accounts one copy for, in
// bytes.
func (s *sharing) distinct(ctx context.Context, all []*pullable) (sum int64, err error) {
	ctx = inNamespace(ctx)
	side := s.sides[0]
	service := side.client.SnapshotService(side.snapshotter)
	seen := map[digest.Digest]bool{}
	for _, p := range all {
		var ids []digest.Digest
		for _, l := range p.layers {
			ids = append(ids, l.diffID)
			if seen[l.diffID] {
				continue
			}
			seen[l.diffID] = true
			usage, err := service.Usage(ctx, identity.ChainID(ids).String())
			if err != nil {
				return 0, err
			}
			sum += usage.Size
		}
	}
	return sum, nil
}

func (s *sharing) reportTen(distinct int64, differences []string) error {
	var used, times [2][]float64
	for i, side := range s.sides {
		if err := side.fs.flush(); err != nil {
			return err
		}
		n, err := diskUsage(side.snapshotRoot())
		if err != nil {
			return err
		}
		used[i] = []float64{mib(n)}
		times[i] = []float64{float64(n) / float64(distinct)}
	}
	s.report.add(figure{
		name: "ten/disk", unit: "MiB", values: used, note: treesNote(differences), failures: differences,
	})
	s.report.add(figure{
		name: "ten/disk by distinct layers", unit: "", values: times, goal: s.asked(strataAtMost, 1.02),
		note: fmt.Sprintf("the distinct layers have %.0f MiB", mib(distinct)),
	})
	return nil
}
