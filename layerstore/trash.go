// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/log"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"golang.org/x/sys/unix"
)

// deleteWorkers is how many trees are deleted at a time: enough to keep a disk
// busy, few enough to leave it to others.
const deleteWorkers = 2

// deletePause is how long deletion in the background waits after it was woken: whoever
// removes one snapshot often removes many, and their trees are deleted in one go, when
// those calls are no longer in a hurry.
const deletePause = 100 * time.Millisecond

// deleting knows which items of the trash somebody is deleting.
type deleting struct {
	mu    sync.Mutex
	items map[string]chan struct{} // closed when done with it
	wake  chan struct{}
	// pending is how many items there are, about: a metric.
	pending atomic.Int64
	// stuck is what there was no room for in the trash, by where it still is.
	stuck map[stuckItem]struct{}
}

// TrashSnapshot moves the directory of active snapshot n to the trash. One that
// is not there any more is no error.
//
// The caller's transaction, after which nothing names the directory, is
// committed.
func (s *Store) TrashSnapshot(n uint64) error {
	return s.rootError(s.toTrash(s.snapshots, name(n)))
}

// TrashLayer moves layer n to the trash, as TrashSnapshot does.
func (s *Store) TrashLayer(n uint64) error {
	return s.rootError(s.toTrash(s.layers, name(n)))
}

func (s *Store) toTrash(from *os.File, item string) error {
	if from == s.layers {
		return s.layerToTrash(item)
	}
	return s.moveToTrash(from, item, item)
}

// moveToTrash moves an item under a name that is free: a number can come here
// twice, as a snapshot that failed and as what is left of it.
func (s *Store) moveToTrash(from *os.File, item, as string) error {
	if err := failpoint.Hit(failpoint.TrashMove); err != nil {
		return err
	}
	for i := 0; ; i++ {
		err := rename(from, item, s.trash, trashName(as, i))
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
			continue
		}
		if errors.Is(err, unix.ENOENT) {
			if gone, _ := exists(from, item); !gone {
				return nil
			}
		}
		if err == nil {
			failpoint.Pass(failpoint.TrashMoved)
			s.deleting.pending.Add(1)
			s.wakeDeletion()
		}
		if isFull(err) && s.moveLater(from, item, as) {
			return nil
		}
		return err
	}
}

func trashName(as string, try int) string {
	if try == 0 {
		return as
	}
	return fmt.Sprintf("%s-%d", as, try)
}

func (s *Store) wakeDeletion() {
	select {
	case s.deleting.wake <- struct{}{}:
	default: // it will look again anyway
	}
}

func (s *Store) deleteInBackground(ctx context.Context) {
	defer close(s.stopped)
	s.wakeDeletion()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.deleting.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(deletePause):
		}
		if err := s.EmptyTrash(ctx); err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).WithField("root", s.path).Warn("some removed directories could not be deleted yet")
		}
	}
}

// EmptyTrash deletes all that is in the trash now, waiting for what is being
// deleted already, and leaves disk and processor to others. It stops when ctx ends; the
// background goes on.
func (s *Store) EmptyTrash(ctx context.Context) error {
	return s.emptyTrash(ctx, calmly)
}

// EmptyTrashNow is EmptyTrash for those whom somebody waits for.
func (s *Store) EmptyTrashNow(ctx context.Context) error {
	return s.emptyTrash(ctx, func(_ context.Context, fn func()) { fn() })
}

// emptyTrash deletes within what run makes of each worker, also what there was no room
// for before.
func (s *Store) emptyTrash(ctx context.Context, run func(context.Context, func())) error {
	for {
		items, err := listDir(s.trash)
		if err == nil {
			s.deleting.pending.Store(int64(len(items)))
			err = s.deleteItems(ctx, items, run)
		}
		if err != nil {
			return s.rootError(err)
		}
		moved, left := s.moveStuck()
		if moved > 0 || left > 0 && len(items) > 0 {
			continue
		}
		return s.rootError(s.stillStuck(left))
	}
}

func (s *Store) deleteItems(ctx context.Context, items []string, run func(context.Context, func())) error {
	errs := make([]error, len(items)) // one item must not keep another
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(deleteWorkers, len(items)) {
		workers.Go(func() {
			run(ctx, func() {
				for i := int(next.Add(1)) - 1; i < len(items); i = int(next.Add(1)) - 1 {
					errs[i] = s.deleteItem(ctx, items[i])
				}
			})
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}

// deleteItem deletes an item of the trash, or waits for who does.
func (s *Store) deleteItem(ctx context.Context, item string) error {
	s.deleting.mu.Lock()
	done, taken := s.deleting.items[item]
	if !taken {
		done = make(chan struct{})
		s.deleting.items[item] = done
	}
	s.deleting.mu.Unlock()
	if taken {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() {
		s.deleting.mu.Lock()
		defer s.deleting.mu.Unlock()
		delete(s.deleting.items, item)
		close(done)
	}()
	if err := failpoint.Hit(failpoint.TrashDelete); err != nil {
		return err
	}
	err := s.remover().tree(ctx, s.trash, item, item, 0)
	if err == nil {
		s.deleting.pending.Add(-1)
	}
	return err
}

// TrashPending returns how many removed directories are not deleted yet. It is a figure
// for a metric: it can be off while directories are moved and deleted.
func (s *Store) TrashPending() int64 { return max(s.deleting.pending.Load(), 0) }

// listDir returns the names in a directory that is open for good: through a
// descriptor of its own, whose position nobody else moves.
func listDir(dir *os.File) (_ []string, err error) {
	f, err := openDir(int(dir.Fd()), ".")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Readdirnames(-1)
}
