// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/internal/idle"
	"github.com/strata-snapshotter/strata/layerindex"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// scrubDelay is how long after its start a daemon leaves the disk alone: a node that
// boots has other things to do.
const scrubDelay = time.Minute

// Scrub holds the layers of a root against their indexes, one after the other, again and
// again. It changes nothing.
type Scrub struct {
	sn    layerVerifier
	root  string
	every time.Duration
	pace  *idle.Pace
	delay time.Duration
	// damaged are the layers that damage was logged of. Only Run uses it.
	damaged map[uint64]bool
	counts  scrubCounts
}

// layerVerifier is what of a snapshotter.Snapshotter a Scrub needs.
type layerVerifier interface {
	Layers() ([]uint64, error)
	VerifyLayer(ctx context.Context, n uint64, pace layerindex.Pace) (snapshotter.Verified, error)
	ReadScrub(v any) error
	WriteScrub(v any) error
}

type scrubCounts struct {
	rounds, layers, unindexed, damaged, failed, entries, bytes atomic.Int64
}

// ScrubStats are what a Scrub has done since the process began.
type ScrubStats struct {
	Rounds    int64 // over all layers
	Layers    int64 // that were held against their index
	Unindexed int64 // layers without an index, each time they were come to
	Damaged   int64 // layers that are known to be damaged
	Failed    int64 // layers that could not be checked
	Entries   int64 // looked at
	Bytes     int64 // of content read
}

// NewScrub returns a Scrub of the snapshotter at root, or nil if cfg wants none.
func NewScrub(sn *snapshotter.Snapshotter, root string, cfg config.Scrub) *Scrub {
	every := cfg.Every()
	if every <= 0 {
		return nil
	}
	return &Scrub{sn: sn, root: root, every: every, pace: idle.NewPace(cfg.Rate), delay: scrubDelay, damaged: map[uint64]bool{}}
}

// Stats reads the counters. It may be called at any time, also of a nil Scrub.
func (s *Scrub) Stats() ScrubStats {
	if s == nil {
		return ScrubStats{}
	}
	c := &s.counts
	return ScrubStats{
		Rounds: c.rounds.Load(), Layers: c.layers.Load(), Unindexed: c.unindexed.Load(), Damaged: c.damaged.Load(),
		Failed: c.failed.Load(), Entries: c.entries.Load(), Bytes: c.bytes.Load(),
	}
}

// scrubState is where a Scrub is. A restart goes on there.
type scrubState struct {
	Started time.Time `json:"started"`         // of the round
	Layer   uint64    `json:"layer,omitempty"` // the last that was checked; 0: the round has ended
}

// wait is how long it is until the next round.
func (st scrubState) wait(now time.Time, every time.Duration) time.Duration {
	if st.Layer != 0 || st.Started.IsZero() {
		return 0
	}
	return min(st.Started.Add(every).Sub(now), every) // the clock can have been wrong
}

// Run works until ctx ends, which is the only reason to return. It does nothing of a nil
// Scrub.
func (s *Scrub) Run(ctx context.Context) {
	if s == nil {
		return
	}
	var state scrubState
	if err := s.sn.ReadScrub(&state); err != nil && !errdefs.IsNotFound(err) {
		log.G(ctx).WithError(err).Warn("checking the layers begins with the first")
	}
	for wait := max(s.delay, state.wait(time.Now(), s.every)); idle.Sleep(ctx, wait) == nil; wait = state.wait(time.Now(), s.every) {
		if err := s.round(ctx, &state); err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("checking the layers ended early")
		}
	}
}

// round goes over all layers, or what is left of them.
func (s *Scrub) round(ctx context.Context, state *scrubState) error {
	if state.Layer == 0 {
		state.Started = time.Now()
	}
	layers, err := s.sn.Layers()
	if err != nil {
		state.Layer = 0
		return err
	}
	s.forget(layers)
	for _, n := range layers {
		if n <= state.Layer {
			continue
		}
		if err := idle.Run(ctx, func() error { return s.layer(ctx, n) }); err != nil {
			return err
		}
		state.Layer = n
		if err := s.sn.WriteScrub(state); err != nil {
			log.G(ctx).WithError(err).Debug("a restart will check some layers again")
		}
	}
	state.Layer = 0
	s.counts.rounds.Add(1)
	return s.sn.WriteScrub(state)
}

// forget drops damaged layers that were removed.
func (s *Scrub) forget(there []uint64) {
	still := map[uint64]bool{}
	for _, n := range there {
		if s.damaged[n] {
			still[n] = true
		}
	}
	s.damaged = still
	s.counts.damaged.Store(int64(len(still)))
}

// layer checks one layer. What is wrong with it is no error: the next one is checked.
func (s *Scrub) layer(ctx context.Context, n uint64) error {
	v, err := s.sn.VerifyLayer(ctx, n, s.pace.Wait)
	s.counts.entries.Add(v.Stats.Entries)
	s.counts.bytes.Add(v.Stats.Bytes)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errdefs.IsNotFound(err): // removed, or not a layer yet
	case err != nil:
		s.counts.failed.Add(1)
		log.G(ctx).WithError(err).WithField("layer", n).Warn("a layer could not be checked")
	case !v.Indexed:
		s.counts.unindexed.Add(1)
	default:
		s.counts.layers.Add(1)
		s.report(ctx, n, v)
	}
	return nil
}

// report logs damage, once for each layer.
func (s *Scrub) report(ctx context.Context, n uint64, v snapshotter.Verified) {
	if (v.Damaged == nil && len(v.Problems) == 0) || s.damaged[n] {
		return
	}
	s.damaged[n] = true
	s.counts.damaged.Store(int64(len(s.damaged)))
	what := v.Problems.String()
	if v.Damaged != nil {
		what = fmt.Sprint(v.Damaged, "; ", what)
	}
	log.G(ctx).WithField("layer", n).WithField("diffID", v.DiffID).WithField("found", what).
		Errorf("a layer is damaged: stop the daemon and run containerd-strata-grpc --root %s fsck --data, which names the images and containers that stand on it", s.root)
}

// start runs s beside the server. The returned function ends it, and waits for that for
// as long as calls get: a disk that hangs must not keep the process.
func (s *Scrub) start(ctx context.Context, patience time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	return func() {
		cancel()
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
			log.G(ctx).Warn("checking the layers has not ended in time")
		}
	}
}
