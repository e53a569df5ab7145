// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sync/errgroup"
)

const eight = 8

// eightWay is who unpacks.
type eightWay struct {
	name   string
	pull   puller
	cached bool // the blobs are in the content store: what is measured is unpacking
}

var eightWays = []eightWay{
	{name: "transfer", pull: byTransfer},
	{name: "client", pull: byClient, cached: true},
}

// manyRun is a pull of one image by some clients at once.
type manyRun struct {
	wall    time.Duration
	written int64 // bytes, by the daemon that extracts
	grown   int64 // bytes on disk
}

// eightClients pulls an image in one namespace, and in eight at once.
func (s *sharing) eightClients(ctx context.Context) error {
	p, err := s.registry.publish("eight", s.named("base-a", "a", "b", "d"))
	if err != nil {
		return err
	}
	for _, way := range eightWays {
		if !s.o.run.MatchString("eight/" + way.name) {
			continue
		}
		err := s.eachSide(func(side *side) error {
			if err := side.restart(ctx, 1, s.o.durability); err != nil {
				return err
			}
			if way.cached {
				if err := side.keepBlobs(ctx, p); err != nil {
					return err
				}
			}
			return side.settle()
		})
		if err != nil {
			return err
		}
		if err := s.eightBy(ctx, way, p); err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
	}
	return nil
}

// keepBlobs fetches an image into the content store, where all namespaces find it.
func (s *side) keepBlobs(ctx context.Context, p *pullable) error {
	_, err := s.client.Fetch(namespaces.WithNamespace(ctx, namespace+"-blobs"), p.ref, containerd.WithPlatform(""))
	return err
}

func (s *sharing) eightBy(ctx context.Context, way eightWay, p *pullable) error {
	var runs [2]map[int][]manyRun
	for i := range runs {
		runs[i] = map[int][]manyRun{}
	}
	var differences []string
	for i := range s.o.pairs {
		for _, clients := range []int{1, eight} {
			for n, side := range s.sides {
				run, err := side.pullMany(ctx, way.pull, p, clients)
				if err != nil {
					return fmt.Errorf("%s, %d clients: %w", side.name, clients, err)
				}
				runs[n][clients] = append(runs[n][clients], run)
			}
			if i == 0 && clients == eight {
				var err error
				if differences, err = comparePulled(ctx, s.dir, s.sides, p); err != nil {
					return fmt.Errorf("comparing the trees: %w", err)
				}
			}
			if err := s.eachSide(func(side *side) error { return side.deleteMany(ctx, p, clients) }); err != nil {
				return err
			}
		}
	}
	s.reportEight("eight/"+way.name, runs, differences)
	return nil
}

// client is the context of the i-th client. The first is that of this program's
// namespace, where trees are compared.
func client(ctx context.Context, i int) context.Context {
	if i == 0 {
		return inNamespace(ctx)
	}
	return namespaces.WithNamespace(ctx, fmt.Sprintf("%s-%d", namespace, i))
}

func (s *side) pullMany(ctx context.Context, pull puller, p *pullable, clients int) (run manyRun, err error) {
	disk, err := diskUsage(s.snapshotRoot())
	if err != nil {
		return run, err
	}
	pid := s.daemons[0].pid()
	written, err := bytesWritten(pid)
	if err != nil {
		return run, err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	start := time.Now()
	for i := range clients {
		group.Go(func() error { return pull(client(groupCtx, i), s, p) })
	}
	if err := group.Wait(); err != nil {
		return run, err
	}
	run.wall = time.Since(start)
	for i := range clients {
		if err := s.checkUnpacked(client(ctx, i), p); err != nil {
			return run, err
		}
	}
	if err := s.fs.flush(); err != nil {
		return run, err
	}
	writtenAfter, err := bytesWritten(pid)
	if err != nil {
		return run, err
	}
	diskAfter, err := diskUsage(s.snapshotRoot())
	run.written, run.grown = writtenAfter-written, diskAfter-disk
	return run, err
}

func (s *side) deleteMany(ctx context.Context, p *pullable, clients int) (err error) {
	for i := range clients {
		err = errors.Join(err, s.client.ImageService().Delete(client(ctx, i), p.ref, images.SynchronousDelete()))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return errors.Join(s.fs.waitEmpty(ctx), s.fs.flush())
}

func (s *sharing) reportEight(name string, runs [2]map[int][]manyRun, differences []string) {
	var one, all, slower, written, grown [2][]float64
	for i := range runs {
		for n, single := range runs[i][1] {
			many := runs[i][eight][n]
			one[i] = append(one[i], wallMS(sample{Wall: single.wall}))
			all[i] = append(all[i], wallMS(sample{Wall: many.wall}))
			slower[i] = append(slower[i], float64(many.wall)/float64(single.wall))
			written[i] = append(written[i], float64(many.written)/float64(single.written))
			grown[i] = append(grown[i], float64(many.grown)/float64(single.grown))
		}
	}
	s.report.add(figure{name: name + " one pull", unit: "ms", values: one})
	s.report.add(figure{name: name + " eight pulls", unit: "ms", values: all, note: treesNote(differences), failures: differences})
	s.report.add(figure{name: name + " eight by one", values: slower, goal: s.asked(strataAtMost, 1.2), note: "of the time"})
	s.report.add(figure{name: name + " written", values: written, goal: s.asked(strataAtMost, 1.05), note: "eight by one, by the extracting daemon"})
	s.report.add(figure{name: name + " disk", values: grown, goal: s.asked(strataAtMost, 1.02), note: "eight by one"})
}
