// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// socketFile is the file of a listening socket. Its descriptor is kept open:
// the inode's number can't be given to another file meanwhile, which is what
// makes remove safe.
type socketFile struct {
	dir  *os.File
	node *os.File
	name string
}

// clearStale removes a socket that a dead process has left at dir/name, and
// nothing else: a file of any other kind, a symlink included, and a socket
// that somebody answers, or might, are FailedPrecondition.
func clearStale(ctx context.Context, dir *os.File, name string) error {
	address := filepath.Join(dir.Name(), name)
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("address %s: %w: %w", address, err, errdefs.ErrFailedPrecondition)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("address %s is %s, not a socket, and is left alone: move it away or choose another address: %w",
			address, kind(st.Mode), errdefs.ErrFailedPrecondition)
	}
	if err := probe(ctx, address); err != nil {
		return err
	}
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove stale socket %s: %w: %w", address, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// kind names the type of a file in words, for messages.
func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a regular file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	default:
		return "a device or a pipe"
	}
}

// probe returns nil only if nobody listens at address. A full backlog, for
// one, is an error of connect(2) behind which somebody lives.
func probe(ctx context.Context, address string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", address)
	switch {
	case err == nil:
		return errors.Join(
			fmt.Errorf("address %s is served by another process, stop it or choose another address: %w", address, errdefs.ErrFailedPrecondition),
			conn.Close())
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil
	default:
		return fmt.Errorf("could not tell whether the socket at address %s is in use, remove it if it is not: %w: %w",
			address, err, errdefs.ErrFailedPrecondition)
	}
}

// bind listens at dir/name with the modes of a.
func (a access) bind(ctx context.Context, dir *os.File, name string) (*net.UnixListener, *socketFile, error) {
	address := filepath.Join(dir.Name(), name)
	lc := net.ListenConfig{Control: narrow}
	ln, err := lc.Listen(ctx, "unix", address)
	if err != nil {
		return nil, nil, fmt.Errorf("listen at %s: %w: %w", address, err, errdefs.ErrFailedPrecondition)
	}
	unixLn, ok := ln.(*net.UnixListener)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("listen at %s: got a %T: %w", address, ln, errdefs.ErrInternal), ln.Close())
	}
	// The net package would unlink by name, whatever is there by then.
	unixLn.SetUnlinkOnClose(false)
	file, err := a.openSocket(dir, name)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("socket %s: %w: %w", address, err, errdefs.ErrFailedPrecondition), ln.Close())
	}
	return unixLn, file, nil
}

// narrow sets the mode of a socket before it is bound: the file it is bound
// to starts with that mode less the umask, so that it is at no moment open to
// others, whatever the umask.
func narrow(_, _ string, conn syscall.RawConn) error {
	var err error
	return errors.Join(conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }), err)
}

// openSocket opens the file of the socket just bound and sets its final mode.
func (a access) openSocket(dir *os.File, name string) (*socketFile, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := &socketFile{dir: dir, name: name, node: os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name))}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, file.node.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, errors.Join(errors.New("replaced by another file"), file.node.Close())
	}
	if err := a.apply(fd, a.socketMode()); err != nil {
		return nil, errors.Join(err, file.remove())
	}
	return file, nil
}

// remove unlinks the socket if its name still means this very inode: a
// successor's socket or a file put there by hand stays. The directory stays
// open for the caller. It must be called once.
func (f *socketFile) remove() error {
	var ours, found unix.Stat_t
	err := unix.Fstat(int(f.node.Fd()), &ours)
	if err == nil {
		err = unix.Fstatat(int(f.dir.Fd()), f.name, &found, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil && ours.Dev == found.Dev && ours.Ino == found.Ino {
		err = unix.Unlinkat(int(f.dir.Fd()), f.name, 0)
	}
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("remove socket %s: %w: %w", f.node.Name(), err, errdefs.ErrUnknown)
	}
	return errors.Join(err, f.node.Close())
}
