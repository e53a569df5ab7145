// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/containerd/log"
	"golang.org/x/sys/unix"
)

// maxDeleteDepth is how many directories a deletion holds open at a time. What
// lies deeper is first moved up into the trash: a tree can be deeper than a
// process may have descriptors, or a path characters.
const maxDeleteDepth = 64

// remover deletes trees in the trash.
type remover struct {
	trash *os.File
	// leftover is called with the new name of a part that was moved up.
	leftover func(item string)
	moved    int
	removed  int // names
}

func (s *Store) remover() *remover {
	return &remover{trash: s.trash, leftover: func(string) { s.wakeDeletion() }}
}

// calmly runs fn on a thread of its own, at the lowest I/O priority that still makes
// progress, and below others who want to run: nobody who deletes is in a hurry, and
// others use the disk.
func calmly(ctx context.Context, fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its priority
		if err := errors.Join(lowerIOPriority(), unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), deleteNice)); err != nil {
			log.G(ctx).WithError(err).Debug("can't lower the priority of deletion")
		}
		fn()
	}()
	<-done
}

// deleteNice is the nice value of deletion.
const deleteNice = 10

// tree deletes dir/base, which is whatever it is. item is what of the trash it
// belongs to.
func (r *remover) tree(ctx context.Context, dir *os.File, base, item string, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.yield()
	err := unix.Unlinkat(int(dir.Fd()), base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	// EISDIR on Linux; EPERM is what POSIX allows for a directory.
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("delete %s: %w", base, err)
	}
	if depth == maxDeleteDepth {
		return r.moveUp(dir, base, item)
	}
	if err := r.contents(ctx, dir, base, item, depth); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(dir.Fd()), base, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete directory %s: %w", base, err)
	}
	return nil
}

// yieldAfter is how many names are removed before others get the processor: some half a
// millisecond of work.
const yieldAfter = 16

// yield lets goroutines run that wait. System calls this short never give the processor
// back, so that calls to the daemon would wait for the ten milliseconds that the
// runtime lets a goroutine have.
func (r *remover) yield() {
	if r.removed++; r.removed%yieldAfter == 0 {
		runtime.Gosched()
	}
}

func (r *remover) contents(ctx context.Context, dir *os.File, base, item string, depth int) (err error) {
	sub, err := openBeneath(dir, base) // not into a mount: what is in there is not ours
	if errors.Is(err, unix.EXDEV) {
		return fmt.Errorf("delete %s: something is mounted on it, unmount it: %w", base, unix.EBUSY)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	for {
		names, err := sub.Readdirnames(readBatch)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, entry := range names {
			if err := r.tree(ctx, sub, entry, item, depth+1); err != nil {
				return err
			}
		}
		// Deleting while reading may make some file systems skip names.
		if _, err := sub.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

func (r *remover) moveUp(dir *os.File, base, item string) error {
	for {
		r.moved++
		to := fmt.Sprintf("%s.%d", item, r.moved)
		err := rename(dir, base, r.trash, to)
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
			continue
		}
		if err == nil {
			r.leftover(to)
		}
		return err
	}
}

const (
	ioprioWhoProcess = 1
	ioprioBestEffort = 2 << 13
	ioprioLowest     = 7
)

// lowerIOPriority acts on the calling thread, see ioprio_set(2).
func lowerIOPriority() error {
	_, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioBestEffort|ioprioLowest)
	if errno != 0 {
		return errno
	}
	return nil
}
