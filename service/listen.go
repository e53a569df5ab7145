// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
)

const (
	// lockSuffix makes the name of an address's lock file.
	lockSuffix = ".lock"
	// The pause after an Accept that failed for want of resources doubles
	// between these two, so that a daemon out of descriptors does not spin.
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// listener accepts connections of admitted peers on the daemon's socket and
// holds the lock of its address.
type listener struct {
	*net.UnixListener
	address string
	access  access
	dir     *os.File
	lock    *durable.Lock
	log     *log.Entry
	closing chan struct{}
	close   func() error
}

// listen makes the socket at the absolute path address. Errors are
// InvalidArgument for a group that does not exist and FailedPrecondition for
// an address that is taken or can't be used.
func listen(ctx context.Context, address, group string) (*listener, error) {
	a, err := newAccess(group)
	if err != nil {
		return nil, err
	}
	dir, err := a.openDir(filepath.Dir(address))
	if err != nil {
		return nil, err
	}
	// Whether an old socket is stale can only be judged while no other daemon
	// judges the same one. The lock is kept until the daemon ends.
	lock, err := durable.Acquire(dir, filepath.Base(address)+lockSuffix)
	if errdefs.IsUnavailable(err) {
		err = fmt.Errorf("address %s is in use, choose another or stop who uses it: %w (%w)", address, err, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	l := &listener{address: address, access: a, dir: dir, lock: lock, log: log.G(ctx), closing: make(chan struct{})}
	if err := l.open(ctx); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

// open replaces a stale socket by a listening one; the lock is held.
func (l *listener) open(ctx context.Context) error {
	name := filepath.Base(l.address)
	if err := clearStale(ctx, l.dir, name); err != nil {
		return err
	}
	ln, file, err := l.access.bind(ctx, l.dir, name)
	if err != nil {
		return err
	}
	l.UnixListener = ln
	l.close = sync.OnceValue(func() error {
		close(l.closing)
		// First the name, then the socket: a client finds nothing rather than
		// a socket that refuses it.
		return errors.Join(file.remove(), ln.Close())
	})
	return nil
}

// Accept waits for a connection of an admitted peer. Others are closed at
// once. A shortage of resources is waited out: returned to the gRPC server it
// could end the whole daemon.
func (l *listener) Accept() (net.Conn, error) {
	pause := minPause
	for {
		conn, err := l.AcceptUnix()
		if err != nil && !transient(err) {
			return nil, err
		}
		if err != nil {
			l.log.WithError(err).Warnf("accept a connection, next try in %s", pause)
			l.sleep(pause)
			pause = min(2*pause, maxPause)
			continue
		}
		pause = minPause
		if l.admitted(conn) {
			return conn, nil
		}
	}
}

// admitted reports whether conn may be served, and closes it if not.
func (l *listener) admitted(conn *net.UnixConn) bool {
	peer, err := l.access.admit(conn)
	if err == nil {
		return true
	}
	err = errors.Join(err, conn.Close())
	l.log.WithError(err).WithFields(log.Fields{"uid": peer.Uid, "gid": peer.Gid, "pid": peer.Pid}).
		Warn("connection refused")
	return false
}

// sleep waits for d, or until the listener is closed.
func (l *listener) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.closing:
	}
}

// transient reports whether accept(2) may succeed later on the same socket.
func transient(err error) bool {
	for _, errno := range []error{
		unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM,
		unix.ECONNABORTED, unix.EINTR, unix.EAGAIN, unix.EPERM,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Close removes the socket and ends Accept. The lock stays until release, so
// that no successor starts while calls are still under way.
func (l *listener) Close() error { return l.close() }

// release gives up the lock of the address. It must be called once.
func (l *listener) release() error {
	if err := errors.Join(l.lock.Release(), l.dir.Close()); err != nil {
		return fmt.Errorf("release address %s: %w: %w", l.address, err, errdefs.ErrUnknown)
	}
	return nil
}
