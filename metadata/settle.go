// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/strata-snapshotter/strata/internal/failpoint"
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
	err := ws.logAndCommit(path, tx, ws.payload)
	if err == nil {
		ws.room.ensure(path, used)
		ws.committed()
		return nil
	}
	landed := !ws.doubt && ws.landed(path, id)
	if !landed && !ws.doubt {
		ws.takeBack()
	}
	if !landed && !ws.doubt {
		return writeError(path, err)
	}
	ws.doubt = true
	switch settled := ws.settle(path) == nil; {
	case settled && landed:
		return nil
	case settled:
		return writeError(path, err)
	}
	return fmt.Errorf("sync %s: %w: %w", path, err, ErrInDoubt)
}

// takeBack takes the last frame out of the log, whose transaction did not come to be. If
// that can't be done, it is in doubt, where it could be believed.
func (ws *writers) takeBack() {
	if err := ws.log.void(); err != nil {
		ws.doubt = ws.log.fallBack(err) != nil
	}
}

// logAndCommit writes the transaction to the log, and then commits it: what is durable in
// metadata.db is in the log, too.
func (ws *writers) logAndCommit(path string, tx *bolt.Tx, payload []byte) error {
	if err := ws.log.append(uint64(tx.ID()), payload); err != nil {
		if fallErr := ws.log.fallBack(err); fallErr != nil {
			ws.doubt = true
			ws.log.forget()
			return errors.Join(err, fallErr, ws.guard(path, tx.Rollback))
		}
	}
	if ws.log.isAhead() {
		failpoint.Pass(failpoint.TransactionLogged)
	}
	ws.db.NoSync = ws.volatile || ws.log.isAhead()
	return ws.guard(path, tx.Commit)
}

// committed has the log go ahead where it is time to. The transaction that was just
// committed says so in metadata.db.
func (ws *writers) committed() {
	ws.since++
	if ws.mark == ws.marked {
		return
	}
	ws.marked = ws.mark
	if !ws.mark {
		return
	}
	if err := ws.log.lead(); err != nil {
		ws.doubt = ws.log.fallBack(err) != nil
	}
}

// landed says whether readers see the write transaction id.
func (ws *writers) landed(path string, id int) (seen bool) {
	if ws.isBroken() != nil {
		return false
	}
	err := ws.guard(path, func() error {
		tx, err := ws.db.Begin(false)
		if err != nil {
			return err
		}
		seen = tx.ID() >= id
		return tx.Rollback()
	})
	return err == nil && seen
}

// settle ends a doubt by writing what is seen once more, under the next page. What it
// stands on was synced before the page whose sync failed.
func (ws *writers) settle(path string) (err error) {
	for range settleTries {
		if !ws.doubt {
			return nil
		}
		if err = ws.log.fallBack(errLogInDoubt); err != nil {
			continue
		}
		var tx *bolt.Tx
		if tx, err = ws.db.Begin(true); err != nil {
			return err
		}
		id := tx.ID()
		if err = ws.logAndCommit(path, tx, nil); err == nil {
			ws.doubt = false
		} else if !ws.landed(path, id) {
			_ = ws.log.void() // fails only where the log is ahead
		}
	}
	return err
}

var errLogInDoubt = errors.New("the last transaction may be in it, and is not in metadata.db")

// begin is a write transaction on top of what is known to be on the disk.
func (ws *writers) begin(path string) (*bolt.Tx, error) {
	if err := ws.isBroken(); err != nil {
		return nil, err
	}
	if err := ws.settle(path); err != nil {
		return nil, fmt.Errorf("an earlier change of %s is still not on the disk: %w (%w)", path, err, errdefs.ErrInternal)
	}
	ws.payload = ws.payload[:0]
	tx, err := ws.db.Begin(true)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		err = closedError(path)
	}
	return tx, err
}

// writeError gives a failed commit its class: a full disk is the caller's to
// know about, and passes.
func writeError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsDataLoss(err):
		return err
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
