// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
)

// Inspector is a root that is open for being looked over and repaired. It holds the
// lock of the root, and does nothing in the background.
type Inspector struct{ s *Store }

// Inspect locks an existing root. Nothing in it is changed but the lock file, which
// names its holder.
//
// ErrNotFound: there is no root. ErrUnavailable: another process uses it; it is named.
func Inspect(root string) (_ *Inspector, err error) {
	s := &Store{path: root, alias: root}
	s.deleting.items = map[string]chan struct{}{}
	s.externals.known = map[uint64]externalNote{}
	i := &Inspector{s: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeFiles())
		}
	}()
	if s.root, err = openDir(unix.AT_FDCWD, root); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("root %s does not exist: %w", root, errdefs.ErrNotFound)
		}
		return nil, classify(err)
	}
	if err := isRoot(s.root); err != nil {
		return nil, err
	}
	if s.lock, err = durable.Acquire(s.root, lockName); err != nil {
		return nil, err
	}
	s.inOrder = writesInOrder(s.root)
	return i, i.open()
}

// isRoot keeps Inspect from leaving a lock file in a directory that is something else.
func isRoot(dir *os.File) error {
	for _, base := range []string{databaseName, layersDir} {
		if there, err := exists(dir, base); there || err != nil {
			return classify(err)
		}
	}
	return fmt.Errorf("%s is no root of Strata, it has neither %s nor %s: %w", dir.Name(), databaseName, layersDir, errdefs.ErrNotFound)
}

// dirs are the directories of the layout that are kept open.
func (i *Inspector) dirs() map[string]**os.File {
	s := i.s
	return map[string]**os.File{
		layersDir: &s.layers, snapshotsDir: &s.snapshots, stagingDir: &s.staging, trashDir: &s.trash, externalDir: &s.externals.dir,
	}
}

// open opens those directories that are there.
func (i *Inspector) open() error {
	for base, file := range i.dirs() {
		if *file != nil {
			continue
		}
		dir, err := openDir(int(i.s.root.Fd()), base)
		switch {
		case err == nil:
			*file = dir
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		default:
			return classify(err)
		}
	}
	return nil
}

// Close unlocks the root.
func (i *Inspector) Close() error { return i.s.closeFiles() }

// DatabasePath returns where the root keeps its metadata.
func (i *Inspector) DatabasePath() string { return i.s.DatabasePath() }

// Path returns the path of rel, below the root, for messages.
func (i *Inspector) Path(rel string) string { return filepath.Join(i.s.path, rel) }

// MeasureLayer measures the directory of layer n. It takes time in proportion to the
// number of entries. Errors have the classes of the file system's.
func (i *Inspector) MeasureLayer(ctx context.Context, n uint64) (c Content, err error) {
	dir, err := i.s.OpenLayer(n)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return measure(ctx, dir, func(string) {})
}

// OpenStoreLayer says whether the directory of a layer in an additional store can be
// opened. ErrUnavailable names it.
func (i *Inspector) OpenStoreLayer(m Manifest) error {
	dir, err := externalNote{Store: m.Store, Path: m.StoreLayer, DiffID: m.DiffID}.open()
	if err != nil {
		return err
	}
	return dir.Close()
}
