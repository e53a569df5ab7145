// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

const (
	// leaseTime is how long what was not finished is kept from GC.
	leaseTime = 24 * time.Hour
	// labelPull is the label of leases of pulls and loads; its value is the image's name.
	labelPull = "strata/pull"
)

// Lease gives a context under which everything that is made is kept from GC until done
// is called, for a day at most. The context has the store's namespace.
func (s *Store) Lease(ctx context.Context, opts ...leases.Opt) (_ context.Context, done func(*error), err error) {
	ctx, l, err := s.lease(ctx, opts...)
	if err != nil {
		return nil, nil, err
	}
	return ctx, func(err *error) {
		// Also what was cancelled gives its lease back.
		*err = errors.Join(*err, s.leases.Delete(context.WithoutCancel(ctx), l))
	}, nil
}

func (s *Store) lease(ctx context.Context, opts ...leases.Opt) (context.Context, leases.Lease, error) {
	ctx = s.Context(ctx)
	opts = append([]leases.Opt{leases.WithRandomID(), leases.WithExpiration(leaseTime)}, opts...)
	l, err := s.leases.Create(ctx, opts...)
	if err != nil {
		return nil, l, fmt.Errorf("make a lease: %w", err)
	}
	return leases.WithLease(ctx, l.ID), l, nil
}

// working runs do under a lease of its own. What do has brought in when it fails stays
// for a day: the layers that were complete, and the downloads, which go on when the same
// is asked for again. After a success no such lease is needed: the image refers to it all.
func (s *Store) working(ctx context.Context, name string, do func(ctx context.Context) error) error {
	// One at a time: each fetches and extracts side by side by itself, and takes what
	// it finds half extracted for left behind.
	if err := s.work.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.work.Release(1)
	ctx, _, err := s.lease(ctx, leases.WithLabels(map[string]string{labelPull: name}))
	if err != nil {
		return err
	}
	if err := s.sweepExtractions(ctx); err != nil {
		return err
	}
	if err := do(ctx); err != nil {
		if ctx.Err() != nil { // what failed because of that is of no interest
			return fmt.Errorf("interrupted, it goes on when it is asked for again: %w", ctx.Err())
		}
		return err
	}
	return s.dropWork(ctx, fmt.Sprintf("labels.%q==%q", labelPull, name))
}

// dropWork gives back those leases of pulls and loads that a filter finds.
func (s *Store) dropWork(ctx context.Context, filter string) error {
	found, err := s.leases.List(ctx, filter)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range found {
		if err := s.leases.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("delete lease %s: %w", l.ID, err)
		}
	}
	return nil
}

// sweepExtractions removes the snapshots that a process was extracting layers into when
// it was killed: nobody goes on with those, and this process has the root to itself.
func (s *Store) sweepExtractions(ctx context.Context) error {
	var stale []string
	err := s.Snapshotter().Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindActive && strings.HasPrefix(info.Name, snapshots.UnpackKeyPrefix+"-") {
			stale = append(stale, info.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for unfinished layers: %w", err)
	}
	for _, key := range stale {
		if err := s.RemoveSnapshot(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
