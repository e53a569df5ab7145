// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"fmt"
)

// Barrier is what has to be on disk before transactions that name it are written, such
// as the directory that holds what they refer to. It is synced once for all that share
// a transaction.
type Barrier struct{ sync func() error }

// NewBarrier returns a Barrier that sync brings to disk: all that was changed before it
// was called.
func NewBarrier(sync func() error) *Barrier { return &Barrier{sync} }

// UpdateAfter is Update for a transaction that b comes before. The caller has made its
// changes. If they can't be synced, fn does not run, and UpdateAfter fails.
func (s *Store) UpdateAfter(ctx context.Context, b *Barrier, fn func(*Tx) error) error {
	return s.update(ctx, &write{fn: fn, after: b})
}

// syncFirst runs the barriers of a group, each once, and returns those who may go on.
func syncFirst(group []*write) (rest []*write) {
	done := map[*Barrier]error{}
	for _, w := range group {
		if w.after == nil {
			rest = append(rest, w)
			continue
		}
		err, ran := done[w.after]
		if !ran {
			err = w.after.sync()
			done[w.after] = err
		}
		if err != nil {
			finish([]*write{w}, fmt.Errorf("sync what the transaction needs: %w", err))
			continue
		}
		rest = append(rest, w)
	}
	return rest
}
