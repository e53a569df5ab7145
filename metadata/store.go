// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

var (
	bucketMeta      = []byte("meta")
	bucketNames     = []byte("names")
	bucketSnapshots = []byte("snapshots")
	bucketChildren  = []byte("children")
	bucketByRef     = []byte("byref")
	bucketLayers    = []byte("layers")
	bucketRefs      = []byte("refs")
	bucketDiffIDs   = []byte("diffids")
	bucketBlobs     = []byte("blobs")

	keyFormat   = []byte("format")
	keyReserved = []byte("reserved")
)

var buckets = [][]byte{
	bucketMeta, bucketNames, bucketSnapshots, bucketChildren, bucketByRef,
	bucketLayers, bucketRefs, bucketDiffIDs, bucketBlobs,
}

const (
	openTimeout = 10 * time.Second

	// mmapSize is address space, not memory. While bbolt moves its mapping no
	// reader may run, so it should be large enough never to.
	mmapSize = 256 << 20
	// growBy is by how many bytes the file grows when it is full.
	growBy = 4 << 20
)

// Store is an open metadata.db. All methods may be called concurrently.
type Store struct {
	path    string
	db      *bolt.DB
	writers writers
	numbers numbers
	chains  chains
	close   func() error
}

// Option changes how a store is opened.
type Option func(*bolt.Options)

// Volatile leaves it to the kernel when transactions are written: after a power cut
// the file may be damaged. Close writes all of them.
func Volatile() Option { return func(o *bolt.Options) { o.NoSync = true } }

// Open opens the store at path, creating it where there is none.
//
// A store that a newer Strata wrote is refused with ErrFailedPrecondition and
// not touched; a damaged one with ErrDataLoss; one that another process holds
// with ErrUnavailable, after ten seconds.
func Open(path string, opts ...Option) (*Store, error) {
	exists, err := inspect(path, openTimeout)
	if err != nil {
		return nil, err
	}
	options := &bolt.Options{
		Timeout:         openTimeout,
		InitialMmapSize: mmapSize,
		FreelistType:    bolt.FreelistMapType,
		// The free list is found again at open. Writing it with every commit
		// costs more the more pages are free.
		NoFreelistSync: true,
		NoStatistics:   true,
	}
	for _, opt := range opts {
		opt(options)
	}
	db, err := bolt.Open(path, 0o600, options)
	if err != nil {
		return nil, openError(path, err)
	}
	db.AllocSize = growBy
	s := &Store{path: path, db: db}
	s.writers.db = db
	s.close = sync.OnceValue(s.shutdown)
	if !exists {
		err = s.create()
	}
	if err == nil {
		err = s.loadNumbers()
	}
	if err == nil {
		used, sizeErr := s.used()
		s.writers.room.ensure(path, used)
		err = sizeErr
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *Store) create() error {
	return writeError(s.path, s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		f, err := json.Marshal(Format{Version: FormatVersion})
		if err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keyFormat, f)
	}))
}

// View runs fn in a read transaction. It sees one state of the store however
// long it takes, and should be short: pages it sees can't be used again before
// it ends.
func (s *Store) View(fn func(*Tx) error) error {
	err := s.db.View(func(tx *bolt.Tx) error { return fn(&Tx{tx: tx, chains: &s.chains}) })
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return closedError(s.path)
	}
	return err
}

// Close waits for transactions under way and closes the file. Closing twice is
// no error.
func (s *Store) Close() error { return s.close() }

func (s *Store) shutdown() error {
	err := s.giveBackNumbers()
	if s.db.NoSync {
		err = errors.Join(err, s.db.Sync())
	}
	return errors.Join(err, s.db.Close())
}

// Path returns the file the store is in.
func (s *Store) Path() string { return s.path }

// Size returns the size of the file in bytes.
func (s *Store) Size() (int64, error) {
	st, err := os.Stat(s.path)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// used is how many bytes of the file have something in them.
func (s *Store) used() (n int64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		n = tx.Size()
		return nil
	})
	return n, err
}

func closedError(path string) error {
	return fmt.Errorf("%s is closed: %w", path, errdefs.ErrUnavailable)
}
