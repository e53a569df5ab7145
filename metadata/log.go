// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const (
	// logFirst is how much room for changes a new log has, in bytes, logGrow how much is
	// added when that is used up.
	logFirst = 256 << 10
	logGrow  = 1 << 20
	// logSlack is how much a log grows over twice what it would hold if it was written
	// anew, before it is.
	logSlack = 4 << 20
	// logRetry is how long a log that could not be written to is left alone.
	logRetry = 5 * time.Second
	// basePayload is about how long a frame of what is in metadata.db becomes.
	basePayload = 256 << 10
)

// LogPath is where the log of the store at path is.
func LogPath(path string) string { return strings.TrimSuffix(path, ".db") + ".log" }

// recordLog is an open metadata.log. It never keeps a transaction from being committed:
// where it can't be written to, it is marked as stopped, and made anew later.
type recordLog struct {
	path    string
	db      *bolt.DB
	flush   func(*os.File) error // what makes a frame durable, with the sync of metadata.db after it
	renewal sync.WaitGroup
	limit   int64 // slack, changed by tests

	mu       sync.Mutex
	f        *os.File // nil: there is none
	salt     uint64
	last     uint64 // transaction
	from     int64  // of the last frame
	end      int64  // of the last frame
	size     int64  // of the file
	base     int64  // end, when the log was made
	stopped  error  // why it is not written to
	retry    time.Time
	renewing bool
	tail     [][]byte // frames since the log began to be made anew
	closed   bool

	ahead  bool     // see ahead.go
	before *os.File // the log before this one, if that may still be it after a power cut
}

// openLog opens the log of db. One that is not what metadata.db says is made anew; if
// that fails, the store goes on without.
func openLog(path string, db *bolt.DB, flush func(*os.File) error) *recordLog {
	l := &recordLog{path: LogPath(path), db: db, flush: flush, limit: logSlack, salt: newSalt()}
	if !l.resume() {
		l.renewing = true
		l.renew()
	}
	return l
}

// resume goes on with the log that is there, if its last transaction is that of
// metadata.db.
func (l *recordLog) resume() bool {
	c, err := readLog(l.path)
	if err != nil || c.ahead || !c.complete() || c.torn > 0 || c.last != l.dbLast() {
		return false
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	st, err := f.Stat()
	if err != nil {
		l.stopped = errors.Join(err, f.Close())
		return false
	}
	l.f, l.salt, l.last, l.end, l.from, l.size, l.base = f, c.salt, c.last, c.end, c.end, st.Size(), c.end/2
	return true
}

// dbLast is the last transaction of metadata.db.
func (l *recordLog) dbLast() (last uint64) {
	_ = l.db.View(func(tx *bolt.Tx) error { // fails only when the store is closed
		last = uint64(tx.ID())
		return nil
	})
	return last
}

// append writes the frame of transaction id, which is about to be committed. It fails only
// where the log is ahead: then the transaction must not be committed, and may be in the log.
func (l *recordLog) append(id uint64, payload []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	frame := encodeFrame(l.salt, id, payload)
	l.renewIfNeeded() // first: this frame may come too late for what is written then
	if l.renewing {
		l.tail = append(l.tail, frame)
	}
	if l.f == nil || l.stopped != nil {
		return nil
	}
	err := l.write(id, frame)
	switch {
	case err == nil:
	case l.ahead:
		return err
	default:
		l.stop(err)
	}
	return nil
}

// write puts a frame behind the last. bbolt takes a transaction whose commit failed for
// done where only the last sync did: its number is missing then.
func (l *recordLog) write(id uint64, frame []byte) error {
	if l.before != nil {
		return errors.New("it is not known which of two logs is on the disk")
	}
	if id != l.last+1 {
		return fmt.Errorf("transaction %d came after %d", id, l.last)
	}
	if err := l.grow(l.end + int64(len(frame))); err != nil {
		return err
	}
	if _, err := l.f.WriteAt(frame, l.end); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return err
	}
	l.last, l.from, l.end = id, l.end, l.end+int64(len(frame))
	return nil
}

// sync makes the last frame durable, by itself or with the sync of metadata.db that
// follows.
func (l *recordLog) sync() error {
	if l.ahead {
		return unix.Fdatasync(int(l.f.Fd()))
	}
	return l.flush(l.f)
}

// grow makes room for frames up to end. Zeros are written, not only promised: what is
// written over them later is durable with the next sync of metadata.db, as it changes
// nothing about the file.
func (l *recordLog) grow(end int64) error {
	if end <= l.size {
		return nil
	}
	add := max(logGrow, end-l.size)
	if _, err := l.f.WriteAt(make([]byte, add), l.size); err != nil {
		return err
	}
	if err := l.f.Sync(); err != nil {
		return err
	}
	l.size += add
	return nil
}

// forget keeps the frame of a transaction that was not committed out of the log that is
// being made.
func (l *recordLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropTail()
}

func (l *recordLog) dropTail() {
	if len(l.tail) > 0 {
		l.tail = l.tail[:len(l.tail)-1]
	}
}

// void takes the last frame back: its transaction was not committed. It fails only where
// the log is ahead: then the frame may still be there.
func (l *recordLog) void() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropTail()
	if l.f == nil || l.stopped != nil {
		return nil
	}
	_, err := l.f.WriteAt(make([]byte, l.end-l.from), l.from)
	if err == nil {
		err = l.sync()
	}
	switch {
	case err == nil:
		l.end, l.last = l.from, l.last-1
	case l.ahead:
		return err
	default:
		l.stop(err)
	}
	return nil
}

// stop says in the file that it is not all: without that it would be believed. The
// caller holds l.mu.
func (l *recordLog) stop(why error) {
	l.stopped, l.retry = why, time.Now().Add(logRetry)
	_, err := l.f.WriteAt(encodeHeader(stateStopped, l.salt), 0)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		l.stopped = errors.Join(why, err, os.Remove(l.path))
	}
}

// renewIfNeeded begins to make the log anew where it is too long, or not all. The caller
// holds l.mu.
func (l *recordLog) renewIfNeeded() {
	broken := l.f == nil || l.stopped != nil
	if l.renewing || l.closed || time.Now().Before(l.retry) || !broken && l.end < 2*l.base+l.limit {
		return
	}
	l.renewing = true
	l.renewal.Go(l.renew)
}

// renew writes a new log while transactions go on, and puts it in the place of the old
// one. The caller has set l.renewing.
func (l *recordLog) renew() {
	f, last, end, err := l.writeBase()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		err = l.replace(f, last, end)
	}
	if err != nil {
		l.keepOld(err, f)
	}
	l.renewing, l.tail = false, nil
}

// keepOld goes on with the log there is, if any, because of why. f is what would have
// taken its place. The caller holds l.mu.
func (l *recordLog) keepOld(why error, f *os.File) {
	if f != nil {
		why = errors.Join(why, f.Close())
	}
	if err := os.Remove(l.path + ".tmp"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		why = errors.Join(why, err)
	}
	l.retry = time.Now().Add(logRetry)
	if l.f == nil || l.stopped != nil {
		l.stopped = why
	}
}

// writeBase writes what metadata.db says to a temporary file, and syncs it.
func (l *recordLog) writeBase() (f *os.File, last uint64, end int64, err error) {
	f, err = os.OpenFile(l.path+".tmp", os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, 0, 0, err
	}
	if _, err := f.Write(encodeHeader(stateComplete, l.salt)); err != nil {
		return f, 0, 0, err
	}
	end = logHeader
	err = l.db.View(func(tx *bolt.Tx) error {
		last = uint64(tx.ID())
		return baseFrames(tx, func(payload []byte) error {
			frame := encodeFrame(l.salt, last, payload)
			end += int64(len(frame))
			_, err := f.Write(frame)
			return err
		})
	})
	if err != nil {
		return f, 0, 0, err
	}
	return f, last, end, f.Sync()
}

// baseFrames calls write with all that is logged, in pieces. There is at least one.
// What can't be read is not written: the log that is there may be all that is left.
func baseFrames(tx *bolt.Tx, write func(payload []byte) error) error {
	var payload []byte
	for _, name := range loggedBuckets[1:] {
		b := tx.Bucket(name)
		if b == nil {
			return fmt.Errorf("there is no bucket %q", name)
		}
		err := b.ForEach(func(k, v []byte) error {
			if err := checkEntry(name, k, v); err != nil {
				return err
			}
			payload = appendEntry(payload, name, k, v)
			if len(payload) < basePayload {
				return nil
			}
			err := write(payload)
			payload = payload[:0]
			return err
		})
		if err != nil {
			return err
		}
	}
	return write(payload)
}

// replace adds what was committed meanwhile to the new log, and makes it the log. The
// caller holds l.mu.
func (l *recordLog) replace(f *os.File, last uint64, end int64) error {
	base, from := end, end
	for _, frame := range l.tail {
		id, _, _, ok := cutFrame(l.salt, frame)
		if !ok || id <= last {
			continue
		}
		if id != last+1 {
			return fmt.Errorf("transaction %d came after %d", id, last)
		}
		if _, err := f.WriteAt(frame, end); err != nil {
			return err
		}
		last, from, end = id, end, end+int64(len(frame))
	}
	if _, err := f.WriteAt(make([]byte, logFirst), end); err != nil {
		return err
	}
	state := byte(stateComplete)
	if l.ahead {
		state = stateAhead
	}
	if err := writeHeader(f, state, l.salt); err != nil { // which syncs all of it
		return err
	}
	if err := os.Rename(l.path+".tmp", l.path); err != nil {
		return err
	}
	old := l.f
	l.f, l.last, l.from, l.end, l.size, l.base = f, last, from, end, end+logFirst, base
	l.stopped = syncDir(filepath.Dir(l.path))
	if l.stopped != nil && l.ahead {
		l.before, l.stopped = old, nil // the next frame fails, and makes metadata.db stand on its own
		return nil
	}
	if old != nil {
		l.stopped = errors.Join(l.stopped, old.Close())
	}
	return nil
}

func syncDir(path string) (err error) {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return dir.Sync()
}

func (l *recordLog) close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.renewal.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return f.Close()
}

// err is why there is no log, if there is none.
func (l *recordLog) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped
}
