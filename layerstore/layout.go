// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/strata-snapshotter/strata/internal/durable"
	"golang.org/x/sys/unix"
)

const (
	layersDir    = "layers"
	snapshotsDir = "snapshots"
	stagingDir   = "staging"
	trashDir     = "trash"
	emptyDir     = "empty"

	fsName   = "fs"
	workName = "work"

	lockName     = "lock"
	databaseName = "metadata.db"
	logName      = "metadata.log"
	// damagedPrefix begins the names of those that were replaced.
	damagedPrefix = databaseName + ".damaged-"
	// keptDir has what a rebuild could not tell the owner of.
	keptDir = "kept"
)

// Config says where a store is and how careful it is.
type Config struct {
	// Root is the absolute path of the root directory. It is created, with mode
	// 0700, if it is not there.
	Root string
	// Alias is the path to the same directory that mount options name. Empty:
	// Root itself.
	Alias string
	// OverrideStat keeps owners, modes and types in attributes: everything belongs to
	// the user who runs this. A root is of one form for ever.
	OverrideStat bool
	// Volatile leaves out what makes changes survive a power cut. A root that was
	// open like that when the machine went down can't be opened again.
	Volatile bool
	// Check, if set, is asked about the path of metadata.db when the root is locked, and
	// nothing in it is changed yet but the text of the lock file: nothing will be if it
	// returns an error, which Open then does.
	Check func(database string) error
}

// Store is an open root. All methods may be called concurrently.
type Store struct {
	path         string // for messages and for opening
	alias        string // for mount options
	volatile     bool
	overrideStat bool
	inOrder      bool // see writesInOrder

	lock                                    *durable.Lock
	root, layers, snapshots, staging, trash *os.File
	syncLayers, syncSnapshots               *durable.Shared

	externals externals

	busy     busy
	deleting deleting

	stop    context.CancelFunc // ends background deletion
	stopped chan struct{}
}

// Open locks the root, which must not be in use by another process
// (ErrUnavailable names it), creates what is missing in it and begins to delete
// what an earlier process left in the trash. ErrFailedPrecondition: it was open
// with Config.Volatile when the machine went down, or is of the other form than
// Config.OverrideStat says.
func Open(cfg Config) (_ *Store, err error) {
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fmt.Errorf("create root: %w", classify(err))
	}
	s := &Store{path: cfg.Root, alias: cfg.Alias, volatile: cfg.Volatile, overrideStat: cfg.OverrideStat}
	if s.alias == "" {
		s.alias = cfg.Root
	}
	defer func() {
		if err != nil {
			err = errors.Join(classify(err), s.closeFiles())
		}
	}()
	if s.root, err = openDir(unix.AT_FDCWD, s.path); err != nil {
		return nil, fmt.Errorf("open root: %w", err)
	}
	if s.lock, err = durable.Acquire(s.root, lockName); err != nil {
		return nil, err
	}
	if cfg.Check != nil { // before the trash of a newer program is deleted
		if err := cfg.Check(s.DatabasePath()); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(s.checkVolatile(), s.checkOwnership()); err != nil {
		return nil, err
	}
	if err := s.openDirs(); err != nil {
		return nil, err
	}
	s.busy.numbers = map[uint64]int{}
	s.deleting.items = map[string]chan struct{}{}
	s.deleting.wake = make(chan struct{}, 1)
	s.deleting.stuck = map[stuckItem]struct{}{}
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.stopped = stop, make(chan struct{})
	go s.deleteInBackground(ctx)
	return s, nil
}

// openDirs creates and opens the directories of the layout. Theirs are the only
// paths ever resolved by name.
func (s *Store) openDirs() (err error) {
	if err := unix.Fchmod(int(s.root.Fd()), 0o700); err != nil {
		return fmt.Errorf("set the mode of %s: %w", s.path, err)
	}
	for name, file := range map[string]**os.File{
		layersDir: &s.layers, snapshotsDir: &s.snapshots, stagingDir: &s.staging, trashDir: &s.trash,
		externalDir: &s.externals.dir,
	} {
		if err := mkdir(s.root, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if *file, err = openDir(int(s.root.Fd()), name); err != nil {
			return fmt.Errorf("open %s: %w", filepath.Join(s.path, name), err)
		}
	}
	if err := s.loadNotes(); err != nil {
		return err
	}
	s.inOrder = writesInOrder(s.root)
	s.syncLayers = durable.NewShared(s.layers.Sync)
	s.syncSnapshots = durable.NewShared(s.snapshots.Sync)
	// World readable and searchable: it is the root of views of nothing.
	if err := mkdir(s.root, emptyDir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return errors.Join(s.markEmpty(), s.root.Sync())
}

// markEmpty gives the root of views of nothing its owner.
func (s *Store) markEmpty() error {
	if !s.overrideStat {
		return nil
	}
	dir, err := openDir(int(s.root.Fd()), emptyDir)
	if err != nil {
		return err
	}
	return errors.Join(s.DefaultAttrs().apply(dir), dir.Close())
}

// Close ends background deletion, which goes on the next time, and unlocks the
// root.
func (s *Store) Close() error {
	s.stop()
	<-s.stopped
	var err error
	if s.volatile {
		err = s.endVolatile()
	}
	return errors.Join(err, s.closeFiles())
}

func (s *Store) closeFiles() error {
	var errs []error
	for _, f := range []*os.File{s.root, s.layers, s.snapshots, s.staging, s.trash, s.externals.dir} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if s.lock != nil { // last: whoever waits for it finds nobody at work
		errs = append(errs, s.lock.Release())
	}
	return errors.Join(errs...)
}

// Root returns the path of the root directory.
func (s *Store) Root() string { return s.path }

// DatabasePath returns where the root keeps its metadata.
func (s *Store) DatabasePath() string { return filepath.Join(s.path, databaseName) }

// WritesInOrder says whether the file system keeps one journal of metadata changes, so
// that syncing one makes all earlier ones durable.
func (s *Store) WritesInOrder() bool { return s.inOrder }

// Used says whether there are layers or snapshots, whoever they belong to.
func (s *Store) Used() (bool, error) {
	for _, dir := range []*os.File{s.layers, s.snapshots} {
		if numbers, err := s.numbersIn(dir); err != nil || len(numbers) > 0 {
			return true, s.rootError(err)
		}
	}
	return false, nil
}

// LayerPath returns the directory of layer n as mount options should name it.
func (s *Store) LayerPath(n uint64) string {
	return s.alias + "/" + layersDir + "/" + name(n) + "/" + fsName
}

// UpperPath returns the upperdir of the active snapshot n.
func (s *Store) UpperPath(n uint64) string {
	return s.alias + "/" + snapshotsDir + "/" + name(n) + "/" + fsName
}

// WorkPath returns the workdir of the active snapshot n.
func (s *Store) WorkPath(n uint64) string {
	return s.alias + "/" + snapshotsDir + "/" + name(n) + "/" + workName
}

// StagingPath returns where directories are put together. Nothing is kept there.
func (s *Store) StagingPath() string { return s.alias + "/" + stagingDir }

// EmptyPath returns an empty directory.
func (s *Store) EmptyPath() string { return s.alias + "/" + emptyDir }

func name(n uint64) string { return strconv.FormatUint(n, 10) }

// parseName reads a directory name that name made; anything else is not ours.
func parseName(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n != 0 && name(n) == s
}

// busy are the numbers of directories that are being made, moved or removed,
// and which Sweep therefore leaves alone: their transaction may be under way.
type busy struct {
	mu      sync.Mutex
	numbers map[uint64]int
}

// Begin keeps Sweep away from number n until the returned function is called,
// after the transaction that belongs to the change.
func (s *Store) Begin(n uint64) (end func()) {
	s.busy.mu.Lock()
	defer s.busy.mu.Unlock()
	s.busy.numbers[n]++
	return func() {
		s.busy.mu.Lock()
		defer s.busy.mu.Unlock()
		if s.busy.numbers[n]--; s.busy.numbers[n] == 0 {
			delete(s.busy.numbers, n)
		}
	}
}

func (s *Store) isBusy(n uint64) bool {
	s.busy.mu.Lock()
	defer s.busy.mu.Unlock()
	return s.busy.numbers[n] > 0
}
