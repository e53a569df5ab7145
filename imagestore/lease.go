// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
)

// leaseTime is how long what a killed process was working on is kept from GC.
const leaseTime = 24 * time.Hour

// Lease gives a context under which everything that is made is kept from GC until done
// is called, for a day at most. The context has the store's namespace.
func (s *Store) Lease(ctx context.Context, opts ...leases.Opt) (_ context.Context, done func(*error), err error) {
	ctx = s.Context(ctx)
	opts = append([]leases.Opt{leases.WithRandomID(), leases.WithExpiration(leaseTime)}, opts...)
	l, err := s.leases.Create(ctx, opts...)
	if err != nil {
		return nil, nil, err
	}
	done = func(err *error) {
		// Also what was cancelled gives its lease back.
		*err = errors.Join(*err, s.leases.Delete(context.WithoutCancel(ctx), l))
	}
	return leases.WithLease(ctx, l.ID), done, nil
}
