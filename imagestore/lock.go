// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/durable"
)

// lockPoll is the pause between attempts at the lock. flock(2) can wait by itself, but
// not for a time, and not with a context.
const lockPoll = 100 * time.Millisecond

// acquire locks the root, waiting as long as the options say.
//
// ErrUnavailable: another process, which is named, had it all the time. A context that
// ended is its error.
func acquire(ctx context.Context, root *os.File, o Options) (*durable.Lock, error) {
	deadline := time.Now().Add(o.Wait)
	for told := false; ; {
		lock, err := durable.Acquire(root, lockName)
		if err == nil || !errdefs.IsUnavailable(err) {
			return lock, err
		}
		if !time.Now().Before(deadline) {
			return nil, fmt.Errorf("the image store is in use, try again when the other is done: %w", err)
		}
		if !told && o.Waiting != nil {
			o.Waiting(err.Error())
		}
		told = true
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}
