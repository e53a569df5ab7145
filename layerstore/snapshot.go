// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"errors"
	"fmt"
	"os"

	"github.com/strata-snapshotter/strata/internal/failpoint"
	"golang.org/x/sys/unix"
)

const (
	rootMode = 0o755
	workMode = 0o711
)

// MakeSnapshot makes snapshots/N with an empty upperdir, whose own metadata is
// attrs, and a workdir. Both survive a power cut once SyncSnapshots was called.
//
// The caller holds Begin(n) until the snapshot's transaction is committed.
func (s *Store) MakeSnapshot(n uint64, attrs RootAttrs) (err error) {
	defer func() { err = s.rootError(err) }()
	if err := mkdir(s.staging, name(n), 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.toTrash(s.staging, name(n)))
		}
	}()
	if err := s.fillSnapshot(n, attrs); err != nil {
		return err
	}
	// The rename comes last: syncing the directory it goes to then covers all
	// that was done before it, on file systems that write changes in order.
	if err := failpoint.Hit(failpoint.SnapshotPlace); err != nil {
		return err
	}
	err = rename(s.staging, name(n), s.snapshots, name(n))
	failpoint.Pass(failpoint.SnapshotPlaced)
	return err
}

// SyncSnapshots makes the snapshots that were made so far survive a power cut.
func (s *Store) SyncSnapshots() error {
	return s.rootError(s.sync(s.syncSnapshots.Do))
}

func (s *Store) fillSnapshot(n uint64, attrs RootAttrs) (err error) {
	dir, err := openDir(int(s.staging.Fd()), name(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return s.fillDirectory(dir, attrs)
}

func (s *Store) fillDirectory(dir *os.File, attrs RootAttrs) error {
	if err := mkdir(dir, workName, workMode); err != nil {
		return err
	}
	if err := mkdir(dir, fsName, rootMode); err != nil {
		return err
	}
	upper, err := openDir(int(dir.Fd()), fsName)
	if err != nil {
		return err
	}
	return errors.Join(attrs.apply(upper), upper.Close())
}

// sync runs fn unless the store is volatile.
func (s *Store) sync(fn func() error) error {
	if s.volatile {
		return nil
	}
	return fn()
}

// CheckSnapshot says whether the directories of active snapshot n are there:
// ErrUnavailable names the one that is not.
func (s *Store) CheckSnapshot(n uint64) error {
	for _, sub := range []string{fsName, workName} {
		if err := s.check(s.snapshots, name(n)+"/"+sub, s.UpperPath(n)); err != nil {
			return err
		}
	}
	return nil
}

// CheckLayer says whether the directory of layer n is there: ErrUnavailable
// names it. See CheckExternals for layers of additional stores.
func (s *Store) CheckLayer(n uint64) error {
	if err := s.checkExternal(n); err != nil {
		return err
	}
	return s.check(s.layers, name(n)+"/"+fsName, s.LayerPath(n))
}

func (s *Store) check(dir *os.File, rel, path string) error {
	ok, err := exists(dir, rel)
	if err == nil && !ok {
		err = unix.ENOENT
	}
	if err != nil {
		return s.rootError(fmt.Errorf("directory %s: %w", path, err))
	}
	return nil
}

// rootError classifies err, and says so when the reason is that the whole root
// was removed under a running process.
func (s *Store) rootError(err error) error {
	if err == nil {
		return nil
	}
	var st unix.Stat_t
	if unix.Fstat(int(s.root.Fd()), &st) == nil && st.Nlink == 0 {
		err = fmt.Errorf("the root directory %s was removed, restart with an existing one: %w", s.path, err)
	}
	return classify(err)
}
