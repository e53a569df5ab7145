// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// holdWriters keeps a group at work until the returned function is called, so
// that what is sent meanwhile forms one group.
func holdWriters(t *testing.T, s *Store) (release func()) {
	t.Helper()
	began, hold, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- s.Update(context.Background(), func(*Tx) error {
			close(began)
			<-hold
			return nil
		})
	}()
	<-began
	return func() {
		close(hold)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func waitQueued(s *Store, n int) {
	for {
		s.writers.mu.Lock()
		queued := len(s.writers.queue)
		s.writers.mu.Unlock()
		if queued >= n {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func TestGroupSharesATransaction(t *testing.T) {
	s := openStore(t)
	release := holdWriters(t, s)
	const n = 50
	var mu sync.Mutex
	txids := map[int]int{}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			err := s.Update(context.Background(), func(tx *Tx) error {
				mu.Lock()
				txids[tx.tx.ID()]++
				mu.Unlock()
				_, err := tx.Create(Create{Number: uint64(1000 + i), Kind: snapshots.KindActive, Key: fmt.Sprint("k", i)})
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	waitQueued(s, n)
	release()
	wg.Wait()
	if len(txids) != 1 {
		t.Errorf("%d writers took transactions %v, want one", n, txids)
	}
	if got := len(dump(t, reopenCopy(t, s))); got != n {
		t.Errorf("%d of %d answered calls are on disk", got, n)
	}
	checkIndexes(t, s)
}

func TestFailureInAGroupIsAlone(t *testing.T) {
	errLate := errors.New("late")
	s := openStore(t)
	release := holdWriters(t, s)
	var wg sync.WaitGroup
	results := make([]error, 30)
	for i := range results {
		wg.Go(func() {
			results[i] = s.Update(context.Background(), func(tx *Tx) error {
				key := fmt.Sprint("k", i)
				switch i % 3 {
				case 0:
					return errdefs.ErrNotFound // before a write
				case 1:
					if _, err := tx.Create(Create{Number: uint64(1000 + i), Kind: snapshots.KindActive, Key: key}); err != nil {
						return err
					}
					return errLate // after one
				}
				_, err := tx.Create(Create{Number: uint64(1000 + i), Kind: snapshots.KindActive, Key: key})
				return err
			})
		})
	}
	waitQueued(s, len(results))
	release()
	wg.Wait()
	for i, err := range results {
		_, there := get(s, fmt.Sprint("k", i))
		switch i % 3 {
		case 0:
			if !errdefs.IsNotFound(err) {
				t.Errorf("%d: %v", i, err)
			}
		case 1:
			if !errors.Is(err, errLate) || !errdefs.IsNotFound(there) {
				t.Errorf("%d: %v, what it wrote: %v", i, err, there)
			}
		default:
			if err != nil || there != nil {
				t.Errorf("%d: %v, what it wrote: %v", i, err, there)
			}
		}
	}
	checkIndexes(t, s)
}

func TestCancelledWriter(t *testing.T) {
	s := openStore(t)
	release := holdWriters(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	queued := make(chan error, 1)
	go func() {
		queued <- s.Update(ctx, func(*Tx) error {
			t.Error("a cancelled call ran")
			return nil
		})
	}()
	waitQueued(s, 1)
	cancel()
	if err := <-queued; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	release()
	if err := s.Update(ctx, func(*Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that had ended: %v", err)
	}
	if _, err := create(t, s, snapshots.KindActive, "after", "", nil); err != nil {
		t.Errorf("writers are stuck: %v", err)
	}
}

func TestCancelStorm(t *testing.T) {
	s := openStore(t)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%7)*100*time.Microsecond)
			defer cancel()
			wrote := false
			err := s.Update(ctx, func(tx *Tx) error {
				wrote = true
				return tx.put(bucketBlobs, u64(uint64(i)), nil)
			})
			if (err == nil) != wrote {
				t.Errorf("%d: err %v, ran %v", i, err, wrote)
			}
		})
	}
	wg.Wait()
	if _, err := create(t, s, snapshots.KindActive, "after", "", nil); err != nil {
		t.Errorf("writers are stuck: %v", err)
	}
}

func TestGroupsAreBounded(t *testing.T) {
	s := openStore(t)
	release := holdWriters(t, s)
	var wg sync.WaitGroup
	const n = 2*maxGroup + 10
	for i := range n {
		wg.Go(func() {
			if err := s.Update(context.Background(), func(tx *Tx) error { return tx.put(bucketBlobs, u64(uint64(i)), nil) }); err != nil {
				t.Error(err)
			}
		})
	}
	waitQueued(s, n)
	release()
	wg.Wait()
	err := s.db.View(func(tx *bolt.Tx) error {
		if got := tx.Bucket(bucketBlobs).Stats().KeyN; got != n {
			t.Errorf("%d of %d are there", got, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// slowWriters makes the last group look slow, and as if so many had come to it.
func slowWriters(s *Store, crowd int) {
	s.writers.mu.Lock()
	defer s.writers.mu.Unlock()
	s.writers.crowd, s.writers.took, s.writers.ended, s.writers.pause = crowd, time.Hour, time.Now(), 0
}

// Who waited for others that did not come does not wait again for a while.
func TestLeaderWaitsForNobodyForLong(t *testing.T) {
	s := openStore(t)
	slowWriters(s, 3)
	if err := s.Update(context.Background(), func(*Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	s.writers.mu.Lock()
	defer s.writers.mu.Unlock()
	if s.writers.pause != pauses || s.writers.full != nil || s.writers.leading {
		t.Errorf("after a wait for nobody: %d pauses, waiting: %v, leading: %v", s.writers.pause, s.writers.full != nil, s.writers.leading)
	}
}

// A leader stops waiting when as many are there as there were last time.
func TestLastOfTheCrowdEndsTheWait(t *testing.T) {
	s := openStore(t)
	slowWriters(s, 2)
	ws := &s.writers
	full := make(chan struct{})
	ws.mu.Lock()
	ws.full = full
	ws.mu.Unlock()
	newWrite := func() *write { return &write{done: make(chan struct{}), lead: make(chan struct{})} }
	ws.enqueue(newWrite())
	select {
	case <-full:
		t.Error("one of two ended the wait")
	default:
	}
	last := newWrite()
	ws.enqueue(last)
	select {
	case <-full:
	default:
		t.Error("two of two did not end the wait")
	}
	ws.withdraw(last)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.queue, ws.leading = nil, false // nobody runs them, and Close waits for a leader
}

// A call that finds what another one of its group made must not say so before it is
// there for everybody: containerd looks it up at once.
func TestNobodyHearsOfWhatIsNotCommitted(t *testing.T) {
	for _, spoils := range []bool{false, true} {
		t.Run(fmt.Sprint("after a write of its own ", spoils), func(t *testing.T) {
			s := openStore(t)
			release := holdWriters(t, s)
			made := make(chan error, 1)
			go func() {
				made <- s.Update(context.Background(), func(tx *Tx) error {
					_, err := tx.Create(Create{Number: 1000, Kind: snapshots.KindActive, Key: "k"})
					return err
				})
			}()
			waitQueued(s, 1)
			seen := make(chan error, 1)
			go func() {
				err := s.Update(context.Background(), func(tx *Tx) error {
					if spoils {
						if _, err := tx.Create(Create{Number: 1001, Kind: snapshots.KindActive, Key: "other"}); err != nil {
							return err
						}
					}
					_, err := tx.Create(Create{Number: 1002, Kind: snapshots.KindActive, Key: "k"})
					return err
				})
				if !errdefs.IsAlreadyExists(err) {
					seen <- fmt.Errorf("the second is told %w, want ErrAlreadyExists", err)
					return
				}
				seen <- s.View(func(tx *Tx) error {
					_, err := tx.Get("k")
					return err
				})
			}()
			waitQueued(s, 2)
			release()
			if err := errors.Join(<-made, <-seen); err != nil {
				t.Error(err)
			}
			if got := len(dump(t, reopenCopy(t, s))); got != 1 {
				t.Errorf("%d snapshots, want 1", got)
			}
		})
	}
}
