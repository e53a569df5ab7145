// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"sync"

	"github.com/strata-snapshotter/strata/internal/step"
)

// keyLocks keeps calls that move the directory of one snapshot apart. They are
// only held for renames and a transaction, never for a walk.
type keyLocks struct {
	mu   sync.Mutex
	held map[string]*keyLock
}

type keyLock struct {
	users int           // the holder and those who wait
	free  chan struct{} // holds one token while nobody has the lock
}

// lock waits for key, or for the end of ctx.
func (l *keyLocks) lock(ctx context.Context, key string) (unlock func(), err error) {
	k := l.join(key)
	defer step.Enter(ctx, step.Wait)()
	select {
	case <-k.free:
		return func() { k.free <- struct{}{}; l.leave(key, k) }, nil
	case <-ctx.Done():
		l.leave(key, k)
		return nil, ctx.Err()
	}
}

// tryLock does not wait: it says no if somebody has the key.
func (l *keyLocks) tryLock(key string) (unlock func(), ok bool) {
	k := l.join(key)
	select {
	case <-k.free:
		return func() { k.free <- struct{}{}; l.leave(key, k) }, true
	default:
		l.leave(key, k)
		return nil, false
	}
}

func (l *keyLocks) join(key string) *keyLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]*keyLock{}
	}
	k := l.held[key]
	if k == nil {
		k = &keyLock{free: make(chan struct{}, 1)}
		k.free <- struct{}{}
		l.held[key] = k
	}
	k.users++
	return k
}

func (l *keyLocks) leave(key string, k *keyLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, key)
	}
}
