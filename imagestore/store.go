// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"

	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/internal/durable"
	"github.com/strata-snapshotter/strata/service"
	"github.com/strata-snapshotter/strata/snapshotter"
)

const (
	// Namespace is containerd's namespace that everything in a store is in.
	Namespace = "default"
	// SnapshotterName is the snapshotter's name in containerd's metadata and labels.
	SnapshotterName = "strata"
)

// Store is an open image store. Its methods may be called concurrently. Those that take
// a context need no namespace in it; the services that it hands out do, see Context.
type Store struct {
	options Options
	root    *os.File
	lock    *durable.Lock
	own     *snapshotter.Snapshotter
	bolt    *bolt.DB
	db      *metadata.DB
	images  images.Store
	leases  leases.Manager
	differ  *diff.Differ
	work    *semaphore.Weighted // of pulls and loads, see working
	close   func() error
}

// Open opens the store at o.Root, and makes it if there is none.
//
// ErrUnavailable: another process has it open; it is named. ErrInvalidArgument: an
// option makes no sense. ErrFailedPrecondition: the directory holds something else, or a
// newer format, or can't hold layers.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Store{options: o, work: semaphore.NewWeighted(1)}
	s.close = sync.OnceValue(s.shutdown)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.root, err = openRoot(o.Root); err != nil {
		return nil, err
	}
	if s.lock, err = acquire(ctx, s.root, o); err != nil {
		return nil, err
	}
	if err := checkVersion(s.root); err != nil {
		return nil, err
	}
	if err := s.openParts(ctx); err != nil {
		return nil, err
	}
	return s, giveToGroup(s.root, o.Group)
}

// openParts opens what is in the root, from the bottom up.
func (s *Store) openParts(ctx context.Context) (err error) {
	options := *s.options.Snapshotter
	options.UnpackAhead = 0 // it unpacks in parallel itself
	s.own, err = service.OpenSnapshotter(ctx, service.Opening{
		Root:    s.StorePath(),
		Options: options,
		Limits:  *s.options.Limits,
		// The unpacker in this program knows staged snapshots.
		Staging: func(context.Context) bool { return true },
	})
	if err != nil {
		return err
	}
	if err := makeContent(s.root); err != nil {
		return err
	}
	if err := s.openDatabase(ctx); err != nil {
		return err
	}
	s.images, s.leases = metadata.NewImageStore(s.db), metadata.NewLeaseManager(s.db)
	s.differ, err = service.OpenDiffer(diff.Services{
		Content: s.db.ContentStore(),
		Leases:  s.leases,
		Root:    func(context.Context) (string, error) { return s.contentPath(), nil },
	}, s.own, s.StorePath(), *s.options.Limits)
	return err
}

// openDatabase opens containerd's metadata. The root's lock is held: nobody else can
// have the file open, and waiting for it would be waiting for ever.
func (s *Store) openDatabase(ctx context.Context) error {
	blobs, err := local.NewStore(s.contentPath())
	if err != nil {
		return fmt.Errorf("content store: %w", err)
	}
	options := *bolt.DefaultOptions
	options.NoFreelistSync = true // one page less to write, and to lose
	options.NoStatistics = true
	path := filepath.Join(s.options.Root, databaseName)
	if s.bolt, err = bolt.Open(path, 0o600, &options); err != nil {
		return fmt.Errorf("database %s: %w (%w)", path, err, errdefs.ErrDataLoss)
	}
	s.db = metadata.NewDB(s.bolt, blobs, map[string]snapshots.Snapshotter{SnapshotterName: s.own})
	if err := s.db.Init(ctx); err != nil {
		return fmt.Errorf("database %s: %w", path, err)
	}
	return nil
}

// Close closes everything and unlocks the root. Further calls give the same answer;
// nothing else may be called afterwards.
func (s *Store) Close() error { return s.close() }

// shutdown closes what Open had opened. The lock goes last.
func (s *Store) shutdown() (err error) {
	if s.bolt != nil {
		err = s.bolt.Close()
	}
	if s.own != nil {
		err = errors.Join(err, s.own.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Release())
	}
	if s.root != nil {
		err = errors.Join(err, s.root.Close())
	}
	return err
}

// Context is ctx with the store's namespace, for the services that the store hands out.
func (s *Store) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Root is the absolute path of the store's directory.
func (s *Store) Root() string { return s.options.Root }

// StorePath is the absolute path of the Strata root in the store: layers, snapshots and
// metadata.db.
func (s *Store) StorePath() string { return filepath.Join(s.options.Root, storeName) }

func (s *Store) contentPath() string { return filepath.Join(s.options.Root, contentName) }

// Snapshotter is the snapshotter with containerd's names: a committed snapshot of an
// image is called by its chainID. It belongs to the store and must not be closed.
func (s *Store) Snapshotter() snapshots.Snapshotter { return s.db.Snapshotter(SnapshotterName) }

// Strata is the snapshotter itself, with its own names (see SnapshotName). It belongs to
// the store and must not be closed.
func (s *Store) Strata() *snapshotter.Snapshotter { return s.own }

// Content is the content store.
func (s *Store) Content() content.Store { return s.db.ContentStore() }

// Images are the image records. Names in them are complete, see Reference.
func (s *Store) Images() images.Store { return s.images }

// Leases keep from GC what is being worked on, see Lease.
func (s *Store) Leases() leases.Manager { return s.leases }

// Differ applies and compares layers.
func (s *Store) Differ() *diff.Differ { return s.differ }
