// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
)

const (
	// leaseTime is how long a blob that Compare wrote is kept from containerd's
	// garbage collection. A lease of the caller does not reach a proxy plugin, and
	// when Compare has answered nothing refers to the blob yet: the client writes a
	// manifest that does, and an image. That takes moments; an hour is for clients
	// that upload it first, or are debugged. The lease can't be given up before: there
	// is no call by which a client says that it is done.
	leaseTime = time.Hour
	// cleanupTimeout bounds what is done after a call has failed.
	cleanupTimeout = 10 * time.Second
)

// lease puts on the context the lease that protects what is written with it: the
// caller's, or one of our own that expires. undo is for a failure: nothing needs
// protection then.
func (d *Differ) lease(ctx context.Context) (_ context.Context, undo func(), err error) {
	if id, ok := leases.FromContext(ctx); ok {
		return leases.WithLease(ctx, id), func() {}, nil
	}
	own := leases.Lease{ID: "strata-diff-" + rand.Text()}
	_, err = d.cfg.Leases.Create(ctx, leases.WithID(own.ID), leases.WithExpiration(leaseTime))
	// One of that name can only be ours, of a call whose answer was lost.
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return ctx, nil, fmt.Errorf("take a lease for the new layer: %w", err)
	}
	undo = func() {
		ctx, cancel := cleanupContext(ctx)
		defer cancel()
		if err := d.cfg.Leases.Delete(ctx, own); err != nil {
			log.G(ctx).WithError(err).WithField("lease", own.ID).Warn("a lease of a failed Compare stays until it expires")
		}
	}
	return leases.WithLease(ctx, own.ID), undo, nil
}

// cleanupContext outlives the call it is derived from.
func cleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
}
