// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"unsafe"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// admit decides whether the process at the other end of conn may use the
// socket, by the credentials the kernel noted when it connected (SO_PEERCRED
// and SO_PEERGROUPS, unix(7)). They are returned for the log as far as they
// are known. A refusal is PermissionDenied; a peer whose credentials can't be
// read is refused too.
func (a access) admit(conn *net.UnixConn) (unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return unix.Ucred{}, fmt.Errorf("peer credentials: %w: %w", err, errdefs.ErrPermissionDenied)
	}
	var peer unix.Ucred
	var verdict error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, verdict = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); verdict == nil {
			peer, verdict = *cred, a.check(*cred, int(fd))
		}
	})
	if err = errors.Join(err, verdict); err != nil && !errdefs.IsPermissionDenied(err) {
		err = fmt.Errorf("peer credentials: %w: %w", err, errdefs.ErrPermissionDenied)
	}
	return peer, err
}

// check compares credentials with what is allowed. Supplementary groups are
// asked for only when nothing else has let the peer in.
func (a access) check(peer unix.Ucred, fd int) error {
	if peer.Uid == 0 || peer.Uid == a.euid {
		return nil
	}
	if a.gid != noGroup {
		if peer.Gid == uint32(a.gid) {
			return nil
		}
		groups, err := peerGroups(fd)
		if err != nil {
			return fmt.Errorf("supplementary groups: %w", err)
		}
		if slices.Contains(groups, uint32(a.gid)) {
			return nil
		}
	}
	return fmt.Errorf("peer is neither root, nor this daemon's user, nor in the configured group: %w", errdefs.ErrPermissionDenied)
}

// peerGroups reads the supplementary groups of the peer. The x/sys package
// has no call for an option that is a list of numbers.
func peerGroups(fd int) ([]uint32, error) {
	const width = unsafe.Sizeof(uint32(0))
	groups := make([]uint32, 64)
	for {
		size := uint32(uintptr(len(groups)) * width)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		count := uintptr(size) / width
		switch {
		case errno == 0:
			return groups[:count], nil
		case errno == unix.ERANGE && count > uintptr(len(groups)):
			// The kernel has put the size it needs into size.
			groups = make([]uint32, count)
		default:
			return nil, errno
		}
	}
}
