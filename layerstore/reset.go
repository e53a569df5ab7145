// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/failpoint"
)

// newName is the upperdir that will be, in the workdir: what a crash leaves there goes
// with that.
const newName = "new"

// ResetSnapshot gives active snapshot n an empty upperdir, whatever is in it, and takes
// its seal away. It works on a full disk, too: the snapshot of a layer that found no room
// is whole, and its client can try again.
func (s *Store) ResetSnapshot(n uint64, attrs RootAttrs) (err error) {
	defer func() { err = s.rootError(err) }()
	dir, err := openDir(int(s.snapshots.Fd()), name(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := errors.Join(unlinkIfThere(dir, sealFile), unlinkIfThere(dir, indexFile)); err != nil {
		return err
	}
	err = s.replaceUpper(dir, n, attrs)
	if isFull(err) {
		return s.emptyUpper(dir, attrs)
	}
	return err
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// replaceUpper makes the new directory before it moves the old one away, since there may
// be no room for it.
func (s *Store) replaceUpper(dir *os.File, n uint64, attrs RootAttrs) (err error) {
	if err := mkdir(dir, workName, workMode); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	work, err := openDir(int(dir.Fd()), workName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.Close()) }()
	if err := s.makeUpper(work, attrs); err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.SnapshotReset); err != nil {
		return err
	}
	if err := s.moveToTrash(dir, fsName, name(n)+"."+fsName); err != nil {
		return err
	}
	return rename(work, newName, dir, fsName)
}

// makeUpper makes a new upperdir in a workdir.
func (s *Store) makeUpper(work *os.File, attrs RootAttrs) error {
	// One from an attempt that failed may have attributes.
	if err := unix.Unlinkat(int(work.Fd()), newName, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s/%s: %w", workName, newName, err)
	}
	if err := mkdir(work, newName, rootMode); err != nil {
		return err
	}
	upper, err := openDir(int(work.Fd()), newName)
	if err != nil {
		return err
	}
	return errors.Join(attrs.apply(upper), upper.Close())
}

// emptyUpper deletes what is in the upperdir, and waits for that: it takes no room.
func (s *Store) emptyUpper(dir *os.File, attrs RootAttrs) error {
	if err := s.remover().contents(context.Background(), dir, fsName, fsName, 0); err != nil {
		return err
	}
	upper, err := openDir(int(dir.Fd()), fsName)
	if err != nil {
		return err
	}
	return errors.Join(resetAttrs(upper), attrs.apply(upper), upper.Close())
}

// resetAttrs makes a directory look as a new one does.
func resetAttrs(dir *os.File) error {
	attrs, err := listXattrs(dir)
	if err != nil {
		return err
	}
	for _, attr := range attrs {
		// Those of security modules stay: the host gave them.
		if err := unix.Fremovexattr(int(dir.Fd()), attr); err != nil && isCopied(attr) {
			return fmt.Errorf("remove %s of %s: %w", attr, dir.Name(), err)
		}
	}
	return errors.Join(unix.Fchown(int(dir.Fd()), 0, 0), unix.Fchmod(int(dir.Fd()), rootMode))
}
