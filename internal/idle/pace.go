// SPDX-License-Identifier: Apache-2.0

package idle

import (
	"context"
	"time"
)

// shortest is what is not worth a sleep: what was read too fast is made up for later.
const shortest = 20 * time.Millisecond

// Pace spreads work over time. It is for one goroutine.
type Pace struct {
	rate int64
	free time.Time // when what was asked for so far may be done
}

// NewPace returns a Pace of rate bytes a second; 0 is no limit.
func NewPace(rate int64) *Pace { return &Pace{rate: rate} }

// Wait waits until bytes more may be read. Its error is that of ctx.
func (p *Pace) Wait(ctx context.Context, bytes int64) error {
	if p.rate <= 0 {
		return ctx.Err()
	}
	now := time.Now()
	if p.free.Before(now) {
		p.free = now // time in which nothing was read is not saved up
	}
	p.free = p.free.Add(time.Duration(float64(bytes) / float64(p.rate) * float64(time.Second)))
	return Sleep(ctx, p.free.Sub(now)-shortest)
}

// Sleep waits, unless d is not positive. Its error is that of ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
