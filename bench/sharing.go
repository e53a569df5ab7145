// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// sharing is what the measurements of shared layers have in common. Each of them has
// daemons and file systems of its own.
type sharing struct {
	o        options
	dir      string
	report   *figures
	registry *registry
	sides    [2]*side

	layers map[string]*layer
	real   bool // what is asked of real layers is asked
}

// sharedLayers are those that the measurements use.
var sharedLayers = []string{"a", "b", "c", "d", "f/000", "f/001"}

func measureSharing(ctx context.Context, o options, dir string, report *figures) (err error) {
	s := &sharing{o: o, dir: dir, report: report, layers: map[string]*layer{}}
	if err := s.load(); err != nil {
		return err
	}
	s.registry = startRegistry()
	defer s.registry.close()
	for _, part := range s.parts() {
		if !slices.ContainsFunc(part.names, o.run.MatchString) {
			continue
		}
		if err := s.runPart(ctx, part.measure); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			report.fail(part.name, err)
		}
	}
	return nil
}

// sharingPart is measured on file systems that are fresh for it.
type sharingPart struct {
	name    string
	names   []string // of what it measures
	measure func(context.Context) error
}

func (s *sharing) parts() []sharingPart {
	second, eight := sharingPart{name: "second", measure: s.secondImage}, sharingPart{name: "eight", measure: s.eightClients}
	for _, setting := range secondSettings {
		for _, mode := range unpackModes {
			second.names = append(second.names, secondName(setting, mode))
		}
	}
	for _, way := range eightWays {
		eight.names = append(eight.names, "eight/"+way.name)
	}
	return []sharingPart{second, {"ten", []string{"ten"}, s.tenImages}, eight}
}

// load finds the layers: the bases are made here, the others too if it shall be quick.
func (s *sharing) load() error {
	dir := filepath.Join(s.dir, "generated")
	made := slices.Clone(bases)
	if s.o.quick {
		made = append(made, quickLayers...)
	}
	if err := generate(dir, made); err != nil {
		return err
	}
	generated := &corpus{dir: dir, layers: map[string]*layer{}}
	given := generated
	if !s.o.quick {
		var err error
		if given, err = openCorpus(s.o.corpus); err != nil {
			return err
		}
		s.real = !given.generated()
	}
	for _, name := range sharedLayers {
		if err := s.loadLayer(given, name); err != nil {
			return err
		}
	}
	for _, base := range bases {
		if err := s.loadLayer(generated, base.name); err != nil {
			return err
		}
	}
	return nil
}

func (s *sharing) loadLayer(c *corpus, name string) (err error) {
	if s.layers[name], err = c.layer(name, "gz"); err != nil {
		return fmt.Errorf("layer %s of %s: %w", name, c.dir, err)
	}
	return nil
}

// named are the layers of these names.
func (s *sharing) named(names ...string) []*layer {
	layers := make([]*layer, len(names))
	for i, name := range names {
		layers[i] = s.layers[name]
	}
	return layers
}

// asked is a goal for real layers.
func (s *sharing) asked(of goalOf, limit float64) goal {
	if !s.real {
		return goal{}
	}
	return goal{of, limit}
}

func (s *sharing) runPart(ctx context.Context, measure func(context.Context) error) (err error) {
	s.sides = newSides(s.o)
	defer func() {
		for _, side := range s.sides {
			if s.o.keep {
				side.printLogs()
			}
			err = errors.Join(err, side.close(), os.RemoveAll(filepath.Join(s.dir, side.name)))
		}
	}()
	for _, side := range s.sides {
		side.unpacks = 1
		if err := side.open(ctx, s.o, s.dir, s.o.durability, nil, nil); err != nil {
			return fmt.Errorf("%s: %w", side.name, err)
		}
	}
	if err := measure(ctx); err != nil {
		return err
	}
	for _, side := range s.sides {
		for _, d := range side.daemons {
			if err := d.ended(); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachSide does the same on one side after the other.
func (s *sharing) eachSide(do func(*side) error) error {
	for _, side := range s.sides {
		if err := do(side); err != nil {
			return err
		}
	}
	return nil
}
