// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
)

func putNumber(n int) func(*Tx) error {
	return func(tx *Tx) error { return tx.put(bucketBlobs, u64(uint64(n)), nil) }
}

// What a barrier syncs was changed before: each caller's change is seen by a sync that
// comes before its transaction.
func TestBarrierComesFirst(t *testing.T) {
	s := openStore(t)
	var changes, synced atomic.Int64
	b := NewBarrier(func() error {
		synced.Store(changes.Load())
		return nil
	})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			mine := changes.Add(1)
			err := s.UpdateAfter(context.Background(), b, func(tx *Tx) error {
				if synced.Load() < mine {
					t.Errorf("a transaction ran when %d changes were synced, and its own is number %d", synced.Load(), mine)
				}
				return putNumber(i)(tx)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A barrier that fails keeps those from running who named it, and nobody else.
func TestBarrierFails(t *testing.T) {
	s := openStore(t)
	var runs atomic.Int64
	b := NewBarrier(func() error {
		runs.Add(1)
		return errdefs.ErrResourceExhausted
	})
	var wg sync.WaitGroup
	hold, held := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		err := s.Update(context.Background(), func(*Tx) error { close(held); <-hold; return nil })
		if err != nil {
			t.Error(err)
		}
	})
	<-held
	for i := range 8 {
		wg.Go(func() {
			if i%2 == 0 {
				if err := s.Update(context.Background(), putNumber(i)); err != nil {
					t.Error(err)
				}
				return
			}
			err := s.UpdateAfter(context.Background(), b, func(*Tx) error {
				t.Error("it ran")
				return nil
			})
			if !errdefs.IsResourceExhausted(err) {
				t.Errorf("got %v", err)
			}
		})
	}
	waitQueued(s, 8)
	close(hold)
	wg.Wait()
	if n := runs.Load(); n != 1 {
		t.Errorf("the barrier was synced %d times for one group", n)
	}
	if err := s.View(func(tx *Tx) error {
		if n := tx.bucket(bucketBlobs).Stats().KeyN; n != 4 {
			return errors.New("not all others have written")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
