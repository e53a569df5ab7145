// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// ErrInDoubt says that a transaction failed at its very last step, the sync of the page
// that makes it count: readers see it, and a power cut may still undo it. It is of the
// class Internal. Until a later transaction reaches the disk, all fail.
//
// Whoever gets it must leave what the transaction names where it is. If the transaction
// did not last, the next start finds what nobody names.
var ErrInDoubt = fmt.Errorf("the last change is not known to be on the disk: %w", errdefs.ErrInternal)

// settleTries is how often a transaction in doubt is followed by an empty one at once.
const settleTries = 2

// end commits a transaction, and finds out what became of it where that fails.
//
// Until bbolt writes the page that names the new root, nothing has happened: a full disk
// or a failed write ends here. From then on readers see the new root, also if syncing it
// fails. Told of a plain failure the caller would move directories back that metadata.db
// names.
func (ws *writers) end(path string, tx *bolt.Tx) error {
	id, used := tx.ID(), tx.Size()
	err := tx.Commit()
	if err == nil {
		ws.room.ensure(path, used)
		return nil
	}
	if !ws.landed(id) {
		return writeError(path, err)
	}
	ws.doubt = true
	if ws.settle() == nil {
		return nil
	}
	return fmt.Errorf("sync %s: %w: %w", path, err, ErrInDoubt)
}

// landed says whether readers see the write transaction id.
func (ws *writers) landed(id int) bool {
	tx, err := ws.db.Begin(false)
	if err != nil {
		return false
	}
	seen := tx.ID() >= id
	_ = tx.Rollback() // of a read transaction: only "already closed" can fail
	return seen
}

// settle ends a doubt by writing what is seen once more, under the next page. What it
// stands on was synced before the page whose sync failed.
func (ws *writers) settle() (err error) {
	for range settleTries {
		if !ws.doubt {
			return nil
		}
		var tx *bolt.Tx
		if tx, err = ws.db.Begin(true); err != nil {
			return err
		}
		if err = tx.Commit(); err == nil {
			ws.doubt = false
		}
	}
	return err
}

// begin is a write transaction on top of what is known to be on the disk.
func (ws *writers) begin(path string) (*bolt.Tx, error) {
	if err := ws.settle(); err != nil {
		return nil, fmt.Errorf("an earlier change of %s is still not on the disk: %w (%w)", path, err, errdefs.ErrInternal)
	}
	return ws.db.Begin(true)
}

// writeError gives a failed commit its class: a full disk is the caller's to
// know about, and passes.
func writeError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return fmt.Errorf("no space to write %s: %w (%w)", path, err, errdefs.ErrResourceExhausted)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("write %s: %w (%w)", path, err, errdefs.ErrFailedPrecondition)
	}
	return fmt.Errorf("write %s: %w (%w)", path, err, errdefs.ErrInternal)
}

// isFull also knows the errors of bbolt that only have the text of their cause, which
// are those of growing the file.
func isFull(err error) bool {
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, full) || strings.HasSuffix(err.Error(), full.Error()) {
			return true
		}
	}
	return false
}
