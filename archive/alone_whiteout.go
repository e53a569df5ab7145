// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/overlayutil"
)

func (a *alone) whiteout(l place) error {
	n, dirfd, err := a.dir(l.dir)
	if err != nil {
		return err
	}
	path := l.target
	if l.dir != "" {
		path = l.dir + "/" + l.target
	}
	hidden := n.hidden()
	err = a.makeWhiteout(n, dirfd, l.target, hidden)
	if errdefs.IsAlreadyExists(err) {
		if err := a.clear(dirfd, path, l.target); err != nil {
			return err
		}
		err = a.makeWhiteout(n, dirfd, l.target, hidden)
	}
	if err != nil {
		return fmt.Errorf("whiteout of %s: %w", quote(path), err)
	}
	return nil
}

// makeWhiteout leaves a whiteout out where nothing is below that it could hide:
// there nobody would take it out of listings either.
func (a *alone) makeWhiteout(n *node, dirfd int, target string, hidden bool) error {
	if hidden {
		var st unix.Stat_t
		err := unix.Fstatat(dirfd, target, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return errors.Join(err, errdefs.ErrAlreadyExists)
	}
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, target, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && a.isWhiteout(dirfd, target, &st) {
		return nil // and counted
	}
	if a.opts.OverrideStat {
		n.whiteout, n.marked = true, true
		made, err := a.meta.makeOverrideWhiteout(dirfd, target)
		a.inodes += made
		return err
	}
	if err := overlayutil.MakeWhiteout(dirfd, target); err != nil {
		return err
	}
	a.inodes++
	n.whiteout = true
	if err := a.index.whiteout(join(n.path, target)); err != nil {
		return err
	}
	if n.marked {
		return nil
	}
	n.marked = true
	return a.opts.Xattrs.MarkOrigin(dirfd)
}

func (a *alone) opaque(l place) error {
	n, dirfd, err := a.dir(l.dir)
	if err != nil || n.opaque {
		return err
	}
	hidden := n.hidden()
	n.opaque = true
	if n != a.tree.root && !hidden {
		if err := a.meta.setOpaque(dirfd); err != nil {
			return fmt.Errorf("opaque directory %s: %w", quote(l.dir), err)
		}
	}
	// Whiteouts that are there already hide nothing any more.
	n.walk(func(d *node) {
		if err == nil && d.whiteout {
			err = a.dropWhiteouts(d)
		}
	})
	return err
}

func (a *alone) dropWhiteouts(n *node) error {
	fd, err := a.tree.open(n)
	if err != nil {
		return err
	}
	a.recount = true
	n.whiteout = false
	names, err := namesIn(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		var err error
		if target, marker := strings.CutPrefix(name, overlayutil.WhiteoutPrefix); marker && name != overlayutil.OpaqueMarker {
			err = errors.Join(a.dropWhiteout(fd, target), dropCompanion(fd, target))
		} else {
			err = a.dropWhiteout(fd, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropWhiteout removes name if it is there and a whiteout.
func (a *alone) dropWhiteout(dirfd int, name string) error {
	var st unix.Stat_t
	err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil || !a.isWhiteout(dirfd, name, &st) {
		return err
	}
	return unix.Unlinkat(dirfd, name, 0)
}
