// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/strata-snapshotter/strata/internal/boltcopy"
)

// InspectCopy is Inspect for a store that another process may have open and write to:
// what it returns is one state of it, of some moment of the call. Nobody waits for it,
// unless who had it open crashed.
//
// Errors are those of Inspect, but for ErrUnavailable: somebody writes to the store
// without a pause.
func InspectCopy(ctx context.Context, path string) (c *Contents, err error) {
	lock, err := lockCopy(ctx, path)
	if err != nil {
		return nil, err
	}
	if lock != nil {
		c, err := inspectAhead(path)
		return c, errors.Join(err, lock.Close())
	}
	db, err := boltcopy.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := checkCopy(path, db); err != nil {
		return nil, err
	}
	return inspectDB(path, db)
}

// lockCopy locks a store that is to be read from its log. It returns nil where that is not
// ahead, or ahead of what somebody has open: metadata.db is as good then.
func lockCopy(ctx context.Context, path string) (*os.File, error) {
	for end := time.Now().Add(openTimeout); ; time.Sleep(lockPoll) {
		lock, err := lockAhead(path, true, 0)
		if !errdefs.IsUnavailable(err) {
			return lock, err
		}
		if recovering, err := isRecovering(path); !recovering || err != nil {
			return nil, err
		}
		if time.Now().After(end) {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
}

// checkCopy is inspect for a store that is open.
func checkCopy(path string, db *bolt.DB) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(path, fmt.Errorf("%v", p))
		}
	}()
	return db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			if err := emptyOrForeign(path, tx); err != nil {
				return err
			}
			return fmt.Errorf("%s is empty: %w", path, errdefs.ErrNotFound)
		}
		f, err := decodeFormat(path, meta.Get(keyFormat))
		if err != nil {
			return err
		}
		return f.check(path)
	})
}
