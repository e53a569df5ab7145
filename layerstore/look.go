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

	"github.com/strata-snapshotter/strata/layerindex"
)

// Looker is a root that is open for being read, whoever uses it meanwhile. What it
// answers is of no one moment: what comes or goes under its eyes may be in it or not.
type Looker struct{ s *Store }

// Look opens an existing root. Nothing in it is locked or changed.
//
// ErrNotFound: there is no root. Others have the classes of the file system's.
func Look(root string) (_ *Looker, err error) {
	dir, err := openDir(unix.AT_FDCWD, root)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("root %s does not exist: %w", root, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, classify(err)
	}
	i := &Inspector{s: &Store{path: root, alias: root, root: dir}}
	if err := isRoot(dir); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	if err := i.open(); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return &Looker{i.s}, nil
}

// Close closes the root.
func (l *Looker) Close() error { return l.s.closeFiles() }

// Root returns the path of the root, as it was given.
func (l *Looker) Root() string { return l.s.path }

// DatabasePath returns where the root keeps its metadata.
func (l *Looker) DatabasePath() string { return l.s.DatabasePath() }

// LayerPath returns the path of the directory of layer n.
func (l *Looker) LayerPath(n uint64) string { return l.s.LayerPath(n) }

// SnapshotPath returns the path of the upper directory of active snapshot n.
func (l *Looker) SnapshotPath(n uint64) string { return l.s.UpperPath(n) }

// OpenLayer opens the directory of layer n for reading. ErrUnavailable: it is not there.
func (l *Looker) OpenLayer(n uint64) (*os.File, error) {
	if l.s.layers == nil {
		return nil, fmt.Errorf("%s has no layers: %w", l.s.path, errdefs.ErrUnavailable)
	}
	return l.s.OpenLayer(n)
}

// ReadManifest reads layer.json of layer n. ErrUnavailable: it is not there.
func (l *Looker) ReadManifest(n uint64) (Manifest, error) {
	if l.s.layers == nil {
		return Manifest{}, fmt.Errorf("%s has no layers: %w", l.s.path, errdefs.ErrUnavailable)
	}
	return l.s.ReadManifest(n)
}

// VerifyLayer is Store.VerifyLayer. A layer that is removed meanwhile seems damaged.
func (l *Looker) VerifyLayer(ctx context.Context, n uint64, opts layerindex.Options, report func(layerindex.Problem) error) (layerindex.Stats, error) {
	if l.s.layers == nil {
		return layerindex.Stats{}, fmt.Errorf("%s has no layers: %w", l.s.path, errdefs.ErrUnavailable)
	}
	return l.s.VerifyLayer(ctx, n, opts, report)
}

// Numbers returns the numbers in "layers" or "snapshots", in no order.
func (l *Looker) Numbers(base string) ([]uint64, error) {
	dir := map[string]*os.File{layersDir: l.s.layers, snapshotsDir: l.s.snapshots}[base]
	if dir == nil {
		return nil, nil
	}
	numbers, err := l.s.numbersIn(dir)
	return numbers, l.s.rootError(err)
}

// Entries returns the names in "staging" or "trash", in no order.
func (l *Looker) Entries(base string) ([]string, error) {
	dir := map[string]*os.File{stagingDir: l.s.staging, trashDir: l.s.trash}[base]
	if dir == nil {
		return nil, nil
	}
	names, err := listDir(dir)
	return names, l.s.rootError(err)
}

// Space is what something takes on disk, as stat(2) counts it: holes not, and files with
// several names once.
type Space struct{ Bytes, Inodes int64 }

// Add adds other to s.
func (s *Space) Add(other Space) {
	s.Bytes += other.Bytes
	s.Inodes += other.Inodes
}

// Measure counts the directory rel, below the root, with all that is in it but for the
// entries of it that skip names. What is mounted below is not counted; what is not there
// takes nothing. It takes time in proportion to the number of entries.
func (l *Looker) Measure(ctx context.Context, rel string, skip func(base string) bool) (space Space, err error) {
	defer func() { err = l.s.rootError(err) }()
	dir, err := openBeneath(l.s.root, filepath.Clean(rel))
	if isGone(err) {
		return space, nil
	}
	if err != nil {
		return space, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return space, err
	}
	space = Space{st.Blocks * blockSize, 1}
	names, err := listDir(dir)
	if err != nil {
		return space, err
	}
	for _, base := range names {
		if skip != nil && skip(base) {
			continue
		}
		part, err := measureEntry(ctx, dir, base)
		if err != nil {
			return space, err
		}
		space.Add(part)
	}
	return space, nil
}

func measureEntry(ctx context.Context, dir *os.File, base string) (_ Space, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case isGone(err):
		return Space{}, nil
	case err != nil:
		return Space{}, &os.PathError{Op: "stat", Path: base, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return Space{st.Blocks * blockSize, 1}, nil
	}
	sub, err := openBeneath(dir, base)
	if isGone(err) {
		return Space{}, nil
	}
	if err != nil {
		return Space{}, err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	c, err := measure(ctx, sub, func(string) {})
	return Space{c.Bytes, c.Inodes}, err
}

// isGone: it was removed or replaced, or something is mounted on it.
func isGone(err error) bool {
	for _, errno := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// LookAround opens a directory that is no root, for measuring only.
//
// ErrUnavailable: it is not there. Others have the classes of the file system's.
func LookAround(path string) (*Looker, error) {
	dir, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return nil, classify(err)
	}
	return &Looker{&Store{path: path, alias: path, root: dir}}, nil
}
