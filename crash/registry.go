// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
)

// state is what is known of a snapshot from the answers of calls.
type state int

const (
	asked     state = iota // the call that makes it was not answered: there, or not
	active                 // there
	committed              // there
	leaving                // the call that ends it was not answered: there, or not
	gone                   // not there
)

// snapshot is one that somebody asked for.
type snapshot struct {
	name    string
	chain   []*layer // what it shows once it is committed, bottom first
	chainID digest.Digest
	parent  *snapshot
	// from is the active snapshot that the Commit turns into this one.
	from *snapshot
	// written is, of a container's active snapshot, what it shows since all was written.
	written []*layer

	state    state
	pins     int // calls that use it
	children int
}

// may says whether the snapshot, if it is there, may be of a kind.
func (s *snapshot) may(kind snapshots.Kind) bool {
	switch {
	case s.state == committed || s.from != nil:
		return kind == snapshots.KindCommitted
	case (s.state == asked || s.state == leaving) && s.chain != nil:
		// A Prepare that found the layer would have committed it, under this name.
		return kind == snapshots.KindActive || kind == snapshots.KindCommitted
	}
	return kind == snapshots.KindActive
}

// registry knows all snapshots of a run.
type registry struct {
	mu       sync.Mutex
	byName   map[string]*snapshot
	order    []*snapshot // as they were asked for
	byChain  map[digest.Digest]*snapshot
	number   int
	commits  int
	removes  int
	onCommit func(*snapshot)
}

func newRegistry(onCommit func(*snapshot)) *registry {
	return &registry{byName: map[string]*snapshot{}, byChain: map[digest.Digest]*snapshot{}, onCommit: onCommit}
}

// name is one that was not used before, in the form of containerd's metadata.
func (g *registry) name(rest string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.number++
	return fmt.Sprintf("%s/%d/%s", namespace, g.number, rest)
}

// ask notes a snapshot before the call that makes it.
func (g *registry) ask(s *snapshot) *snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.byName[s.name] = s
	g.order = append(g.order, s)
	if s.parent != nil {
		s.parent.children++
	}
	return s
}

// set notes an answer, or what is asked for.
func (g *registry) set(s *snapshot, st state) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setLocked(s, st)
}

func (g *registry) setLocked(s *snapshot, st state) {
	if st == gone && s.state != gone && s.parent != nil {
		s.parent.children--
	}
	s.state = st
}

// commit notes the answer to a Commit, or to a Prepare that found the layer: it
// returns the snapshot pinned.
func (g *registry) commit(s *snapshot) *snapshot {
	g.mu.Lock()
	if s.from != nil {
		g.setLocked(s.from, gone)
	}
	g.setLocked(s, committed)
	if s.chainID != "" {
		g.byChain[s.chainID] = s
	}
	s.pins++
	g.commits++
	g.mu.Unlock()
	g.onCommit(s)
	return s
}

// find returns the committed snapshot of a chain, pinned, or nil.
func (g *registry) find(chain digest.Digest) *snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.byChain[chain]
	if s == nil || s.state != committed {
		return nil
	}
	s.pins++
	return s
}

// unpin lets others remove s, which may be nil.
func (g *registry) unpin(s *snapshot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s != nil {
		s.pins--
	}
}

// pick returns a committed snapshot, pinned, or nil.
func (g *registry) pick(random *rand.Rand) *snapshot {
	return g.choose(random, func(s *snapshot) bool { return s.state == committed }, func(s *snapshot) { s.pins++ })
}

// take picks one that nobody uses for removal.
func (g *registry) take(random *rand.Rand) *snapshot {
	return g.choose(random, func(s *snapshot) bool {
		return (s.state == committed || s.state == active) && s.pins == 0 && s.children == 0
	}, func(s *snapshot) {
		s.state = leaving
		if g.byChain[s.chainID] == s {
			delete(g.byChain, s.chainID)
		}
	})
}

func (g *registry) choose(random *rand.Rand, fits func(*snapshot) bool, then func(*snapshot)) *snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	var found []*snapshot
	for _, s := range g.order {
		if fits(s) {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return nil
	}
	s := found[random.IntN(len(found))]
	then(s)
	return s
}

// wrote notes what an active snapshot shows.
func (g *registry) wrote(s *snapshot, chain []*layer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s.written = chain
}

// removed notes the answer to a Remove.
func (g *registry) removed(s *snapshot) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.setLocked(s, gone)
	g.removes++
}

// all returns what was asked for, in order.
func (g *registry) all() []*snapshot {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.order)
}

// settle takes what is there for what was asked for, after a crash.
func (g *registry) settle(listed map[string]snapshots.Info) {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.byChain)
	for _, s := range g.order {
		s.pins, s.children = 0, 0
	}
	for _, s := range g.order {
		info, there := listed[s.name]
		switch {
		case !there:
			s.state = gone
			continue
		case info.Kind == snapshots.KindCommitted:
			s.state = committed
			if s.chainID != "" {
				g.byChain[s.chainID] = s
			}
		default:
			s.state = active
		}
		if parent := g.byName[info.Parent]; parent != nil {
			s.parent = parent
			parent.children++
		}
	}
}
