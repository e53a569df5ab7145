// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/step"
)

// reserveBlock is how many numbers one transaction reserves. A crash loses at
// most that many and reserveAhead; more would make numbers, and with them lowerdir
// strings, longer for nothing.
const reserveBlock = 64

// reserveAhead is how many numbers are left when the next block is reserved: by the one
// who took the last before these, while others go on. Otherwise all would wait for a
// transaction that only one of them is part of.
const reserveAhead = 16

type numbers struct {
	mu       sync.Mutex
	next     uint64 // the number to hand out next
	reserved uint64 // numbers below this are reserved on disk
	given    bool   // back: the store is being closed
}

// Reserve hands out a number that was never handed out before, by this process
// or an earlier one, and never will be again, whatever becomes of it.
func (s *Store) Reserve(ctx context.Context) (uint64, error) {
	defer step.Enter(ctx, step.Transaction)()
	n, left, limit, err := s.takeNumber(ctx)
	if err != nil || left != reserveAhead {
		return n, err
	}
	// It is no failure of this call: whoever finds no number left tries again.
	if s.Update(ctx, func(tx *Tx) error { return tx.raiseReserved(limit) }) == nil {
		s.numbers.mu.Lock()
		defer s.numbers.mu.Unlock()
		if !s.numbers.given {
			s.numbers.reserved = max(s.numbers.reserved, limit)
		}
	}
	return n, nil
}

// takeNumber also says how many numbers are left, and what to reserve next.
func (s *Store) takeNumber(ctx context.Context) (n, left, limit uint64, err error) {
	s.numbers.mu.Lock()
	defer s.numbers.mu.Unlock()
	if s.numbers.next == s.numbers.reserved {
		limit := s.numbers.reserved + reserveBlock
		if err := s.Update(ctx, func(tx *Tx) error { return tx.raiseReserved(limit) }); err != nil {
			return 0, 0, 0, fmt.Errorf("reserve numbers: %w", err)
		}
		s.numbers.reserved = limit
	}
	n = s.numbers.next
	s.numbers.next++
	return n, s.numbers.reserved - s.numbers.next, s.numbers.reserved + reserveBlock, nil
}

func (s *Store) loadNumbers() error {
	return s.View(func(tx *Tx) error {
		n := uint64(1) // 0 means "none" in records
		if v := tx.bucket(bucketMeta).Get(keyReserved); v != nil {
			if len(v) != 8 {
				return damaged(s.path, fmt.Errorf("%q is %d bytes long", keyReserved, len(v)))
			}
			n = binary.BigEndian.Uint64(v)
		}
		s.numbers.next, s.numbers.reserved = n, n
		return nil
	})
}

// giveBackNumbers returns what is left of the block, so that restarts don't
// use up numbers.
func (s *Store) giveBackNumbers() error {
	s.numbers.mu.Lock()
	defer s.numbers.mu.Unlock()
	s.numbers.given = true
	if s.numbers.next == s.numbers.reserved {
		return nil
	}
	next := s.numbers.next
	err := s.Update(context.Background(), func(tx *Tx) error { return tx.setReserved(next) })
	if errdefs.IsResourceExhausted(err) {
		return nil // the block stays reserved: numbers are lost, nothing else
	}
	// Nothing may be handed out from here on: it would not be reserved.
	s.numbers.reserved = next
	return err
}

// raiseReserved never lowers the mark: two callers can raise it at the same time, and the
// one who wants more may come first.
func (tx *Tx) raiseReserved(limit uint64) error {
	if v := tx.bucket(bucketMeta).Get(keyReserved); len(v) == 8 && binary.BigEndian.Uint64(v) >= limit {
		return nil
	}
	return tx.setReserved(limit)
}

func (tx *Tx) setReserved(n uint64) error {
	return tx.put(bucketMeta, keyReserved, u64(n))
}
