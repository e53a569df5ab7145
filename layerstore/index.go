// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
	"github.com/strata-snapshotter/strata/layerindex"
)

// indexFile lies beside the directory of a layer and says what is in it.
const indexFile = "index"

// IndexFile is the index of an active snapshot that a layer is being extracted into. It
// is made, in the place of an older one, when the first bytes are written.
type IndexFile struct {
	s    *Store
	n    uint64
	file *os.File
}

// IndexSnapshot returns the index of active snapshot n, to be written. The caller has the
// snapshot's directory for himself.
func (s *Store) IndexSnapshot(n uint64) *IndexFile { return &IndexFile{s: s, n: n} }

// Write implements io.Writer.
func (f *IndexFile) Write(b []byte) (n int, err error) {
	if f.file == nil {
		if f.file, err = createIndex(f.s.snapshots, f.n); err != nil {
			return 0, f.s.rootError(err)
		}
	}
	n, err = f.file.Write(b)
	return n, f.s.rootError(err)
}

// Close closes the file, if it was made. Further calls do nothing.
func (f *IndexFile) Close() error {
	if f.file == nil {
		return nil
	}
	file := f.file
	f.file = nil
	return f.s.rootError(file.Close())
}

func createIndex(in *os.File, n uint64) (*os.File, error) {
	path := name(n) + "/" + indexFile
	fd, err := unix.Openat(int(in.Fd()), path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// BuildIndex writes the index of active snapshot n from what is in its directory, all of
// which it reads. It is for the few layers that were not recorded while they were
// extracted.
func (s *Store) BuildIndex(ctx context.Context, n uint64) error {
	return s.rootError(buildIndex(ctx, s.snapshots, n))
}

func buildIndex(ctx context.Context, in *os.File, n uint64) (err error) {
	dir, err := openDir(int(in.Fd()), name(n)+"/"+fsName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	f, err := createIndex(in, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := layerindex.NewWriter(f)
	if err := layerindex.Build(ctx, dir, w, nil); err != nil {
		return err
	}
	return w.Finish()
}

// syncIndex puts the data of an index on its blocks, if there is one: what is synced
// later takes the rest along, as with the files of the layer (see fileList.sync).
func syncIndex(in *os.File, n uint64) (err error) {
	fd, err := openIndex(in, n)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	return durable.WaitWritten(fd)
}

func openIndex(in *os.File, n uint64) (int, error) {
	path := name(n) + "/" + indexFile
	fd, err := unix.Openat(int(in.Fd()), path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// dropIndex removes the index of active snapshot n: others wrote to its directory.
func (s *Store) dropIndex(n uint64) error {
	err := unix.Unlinkat(int(s.snapshots.Fd()), name(n)+"/"+indexFile, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// OpenIndex opens the index of layer n for reading. ErrNotFound: it has none.
func (s *Store) OpenIndex(n uint64) (*os.File, error) {
	fd, err := openIndex(s.layers, n)
	if errors.Is(err, unix.ENOENT) {
		if there, statErr := exists(s.layers, name(n)); there && statErr == nil {
			return nil, fmt.Errorf("layer %d has no index: %w", n, errdefs.ErrNotFound)
		}
	}
	if err != nil {
		return nil, s.rootError(err)
	}
	return os.NewFile(uintptr(fd), indexFile), nil
}

// VerifyLayer holds the directory of layer n against its index, see layerindex.Verify.
// ErrNotFound: it has none.
func (s *Store) VerifyLayer(ctx context.Context, n uint64, opts layerindex.Options, report func(layerindex.Problem) error) (stats layerindex.Stats, err error) {
	index, err := s.OpenIndex(n)
	if err != nil {
		return stats, err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	dir, err := s.OpenLayer(n)
	if err != nil {
		return stats, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return layerindex.Verify(ctx, dir, index, opts, report)
}

// VerifyLayer is Store.VerifyLayer of a root that nobody has open.
func (i *Inspector) VerifyLayer(ctx context.Context, n uint64, opts layerindex.Options, report func(layerindex.Problem) error) (layerindex.Stats, error) {
	return i.s.VerifyLayer(ctx, n, opts, report)
}
