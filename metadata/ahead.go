// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/failpoint"
)

// bbolt makes a transaction durable with two syncs, one after the other: of its pages, and
// of the page that names them. A store that is written to often has the log ahead instead:
// a transaction is durable with its frame, for one sync, and metadata.db is written
// without any. After a power cut it may be anything then. So the header of the log says
// that it is ahead, from before the first transaction of that kind, and who opens the
// store while it says so makes metadata.db of it. Before it says anything else,
// metadata.db was synced as a whole.
const (
	// aheadAfter is after how many transactions the log goes ahead: programs that change
	// a thing and end are spared the way there and back.
	aheadAfter = 16
	// featureAhead is in the format of metadata.db from before the log goes ahead until
	// it no longer is. A program that knows nothing of it must not believe the file.
	featureAhead = "log-ahead"
)

// markAhead notes in a transaction whether the log may be ahead after it: it will be as
// soon as it is committed, if it is not and it is time to.
func (ws *writers) markAhead(tx *bolt.Tx) error {
	ws.mark = ws.log.isAhead() || !ws.volatile && ws.since >= ws.aheadAfter && ws.log.canLead()
	if ws.mark == ws.marked {
		return nil
	}
	return (&Tx{tx: tx, log: &ws.payload}).mark(ws.mark)
}

// lead has the log ahead, unless it failed meanwhile. If that does not work, it may be so
// on the disk all the same.
func (l *recordLog) lead() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.leads() {
		return nil
	}
	l.ahead = true
	return writeHeader(l.f, stateAhead, l.salt)
}

func (l *recordLog) isAhead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ahead
}

// canLead says whether the log has all that metadata.db has, and can be written to.
func (l *recordLog) canLead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leads()
}

func (l *recordLog) leads() bool { return l.f != nil && l.stopped == nil && !l.ahead && !l.closed }

// fallBack has metadata.db stand on its own, because of why. The caller keeps others from
// writing to it. If that fails, the log is still ahead.
func (l *recordLog) fallBack(why error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ahead {
		return nil
	}
	if err := l.endLead(stateStopped); err != nil {
		return err
	}
	l.stopped, l.retry = why, time.Now().Add(logRetry)
	return nil
}

// endLead syncs metadata.db, and then says that the log is no longer ahead. The caller
// holds l.mu, and keeps others from writing to metadata.db.
func (l *recordLog) endLead(state byte) error {
	if err := l.db.Sync(); err != nil {
		return err
	}
	if l.before != nil {
		if err := writeHeader(l.before, stateStopped, l.salt); err != nil {
			return err
		}
		before := l.before
		l.before = nil
		if err := before.Close(); err != nil {
			return err
		}
	}
	if err := writeHeader(l.f, state, l.salt); err != nil {
		return err
	}
	l.ahead = false
	return nil
}

// standAlone is endLead when the store is closed. Transactions that come later are synced.
func (s *Store) standAlone() error {
	if !s.log.isAhead() {
		return nil
	}
	if err := s.unmark(); err != nil {
		return err
	}
	tx, err := s.db.Begin(true) // nobody writes as long as it is open
	if err != nil {
		return err
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.closed = true
	if s.log.ahead { // not if it failed meanwhile
		err = s.log.endLead(stateComplete)
	}
	return errors.Join(err, tx.Rollback())
}

// recoverStore makes metadata.db at path of the log, if that is ahead. It can be done
// again where it was interrupted.
//
// ErrUnavailable: another process has the store open. ErrDataLoss: the log is damaged.
func recoverStore(path string) (recovered bool, err error) {
	if ahead, err := logIsAhead(path); !ahead || err != nil {
		return false, err
	}
	busy, err := lockLog(path, openTimeout)
	if busy == nil {
		return false, err
	}
	defer func() { err = errors.Join(err, busy.Close()) }()
	lock, err := lockAhead(path, false, openTimeout)
	if lock == nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	saved, err := aheadOf(path)
	if err != nil {
		return false, err
	}
	if err := saved.replace(path, lock); err != nil {
		return false, err
	}
	failpoint.Pass(failpoint.RecoverPlaced)
	return true, stopLog(path)
}

// aheadOf is all that a log says that is ahead. Nothing may be missing: there is nothing
// else to be believed. What is torn at its end was answered to nobody.
func aheadOf(path string) (*Saved, error) {
	c, err := readLog(LogPath(path))
	if err != nil {
		return nil, err
	}
	f, err := c.format()
	if err == nil {
		err = f.check(path)
	}
	if err != nil {
		return nil, err
	}
	c.torn = 0
	saved := c.saved()
	if len(saved.Lost) > 0 {
		return nil, damaged(path, fmt.Errorf("it was not closed, and of %s, which is to be believed then, something is missing: %s", LogPath(path), strings.Join(saved.Lost, ", ")))
	}
	return saved, nil
}

// replace puts what was saved in the place of the store at path, which is old. Where
// there is no space for two it is written over: what it said is not believed anyway.
func (s *Saved) replace(path string, old *os.File) error {
	made := path + ".tmp"
	if err := os.RemoveAll(made); err != nil {
		return err
	}
	err := s.Write(made)
	if err == nil {
		failpoint.Pass(failpoint.RecoverWritten)
		if err := os.Rename(made, path); err != nil {
			return err
		}
		return syncDir(filepath.Dir(path))
	}
	if err := errors.Join(err, os.RemoveAll(made)); !errdefs.IsResourceExhausted(err) {
		return fmt.Errorf("make %s of its log: %w", path, err)
	}
	if err := old.Truncate(0); err != nil {
		return err
	}
	return s.write(path, func() (*os.File, error) { return dup(old) })
}

// inspectAhead is Inspect for a store whose log is ahead, and that nobody has open.
func inspectAhead(path string) (c *Contents, err error) {
	saved, err := aheadOf(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("metadata", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	db, err := openNew(path, func() (*os.File, error) { return os.NewFile(uintptr(fd), path), nil })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := saved.fill(path, db); err != nil {
		return nil, err
	}
	if c, err = inspectDB(path, db); err == nil {
		c.last = 0 // of no transaction that the log knows
	}
	return c, err
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("dup: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
