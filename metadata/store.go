// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
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
	log     *recordLog
	close   func() error

	recovered bool
}

// Option changes how a store is opened.
type Option func(*options)

type options struct {
	bolt      bolt.Options
	mustExist bool
	flush     func(*os.File) error // see recordLog

	aheadAfter int // transactions
}

// Volatile leaves it to the kernel when transactions are written: after a power cut
// the file may be damaged. Close writes all of them.
func Volatile() Option {
	return func(o *options) {
		o.bolt.NoSync = true
		o.flush = func(*os.File) error { return nil }
	}
}

// WritesInOrder says that the file system of the store writes changes of metadata in
// order, and data over data where that is: then the sync of metadata.db makes the log
// durable, too.
func WritesInOrder() Option {
	return func(o *options) { o.flush = func(f *os.File) error { return durable.WaitWritten(int(f.Fd())) } }
}

// MustExist has a store that is missing or empty refused with ErrDataLoss: there is what
// it was about.
func MustExist() Option { return func(o *options) { o.mustExist = true } }

// Open opens the store at path, creating it where there is none. What it is rebuilt from
// when it is lost is kept beside it, at LogPath.
//
// A store that a newer Strata wrote is refused with ErrFailedPrecondition and
// not touched; a damaged one with ErrDataLoss; one that another process holds
// with ErrUnavailable, after ten seconds.
func Open(path string, opts ...Option) (*Store, error) {
	recovered, err := recoverStore(path)
	if err != nil {
		return nil, err
	}
	exists, err := inspect(path, openTimeout)
	if err != nil {
		return nil, err
	}
	o := defaultOptions()
	for _, opt := range opts {
		opt(&o)
	}
	if !exists && (o.mustExist || logHasSnapshots(path)) {
		return nil, damaged(path, errMissing)
	}
	db, err := openBolt(path, &o.bolt)
	if err != nil {
		return nil, openError(path, err)
	}
	db.AllocSize = growBy
	s := &Store{path: path, db: db, recovered: recovered}
	s.writers.db, s.writers.volatile, s.writers.aheadAfter = db, o.bolt.NoSync, o.aheadAfter
	s.close = sync.OnceValue(s.shutdown)
	if !exists {
		err = createBuckets(path, db)
	}
	if err == nil {
		err = errors.Join(s.loadNumbers(), s.loadMark())
	}
	if err == nil {
		used, sizeErr := s.used()
		s.writers.room.ensure(path, used)
		err = sizeErr
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.log = openLog(path, db, o.flush)
	s.writers.log = s.log
	return s, nil
}

func defaultOptions() options {
	return options{
		aheadAfter: aheadAfter,
		flush:      func(f *os.File) error { return unix.Fdatasync(int(f.Fd())) },
		bolt: bolt.Options{
			Timeout:         openTimeout,
			InitialMmapSize: mmapSize,
			FreelistType:    bolt.FreelistMapType,
			// The free list is found again at open. Writing it with every commit
			// costs more the more pages are free.
			NoFreelistSync: true,
			NoStatistics:   true,
		},
	}
}

// errMissing is what is wrong with a store that is not there, or empty, while what it was
// about is.
var errMissing = errors.New("it is missing or empty, and layers or snapshots are there")

// openBolt turns what bbolt panics on into an error. The pages have been checked before:
// this is for what that missed.
func openBolt(path string, o *bolt.Options) (db *bolt.DB, err error) {
	defer recoverDamage(path, &err)
	return bolt.Open(path, 0o600, o)
}

// createBuckets makes a store of an empty file.
func createBuckets(path string, db *bolt.DB) error {
	return writeError(path, db.Update(func(tx *bolt.Tx) error {
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
// it ends. A page that makes no sense is ErrDataLoss.
func (s *Store) View(fn func(*Tx) error) (err error) {
	defer recoverDamage(s.path, &err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	err = s.db.View(func(tx *bolt.Tx) error { return fn(&Tx{tx: tx, chains: &s.chains}) })
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
	if s.writers.isBroken() != nil {
		return errors.Join(err, s.log.close()) // closing the file would wait for bbolt's lock
	}
	err = errors.Join(err, s.standAlone())
	if s.writers.volatile {
		err = errors.Join(err, s.db.Sync())
	}
	return errors.Join(err, s.log.close(), s.db.Close())
}

// Recovered says whether metadata.db was made of its log when the store was opened: whoever
// had it open before did not close it.
func (s *Store) Recovered() bool { return s.recovered }

// LogError says why there is no log to rebuild the store from, nil if there is one.
// The store goes on without, and tries again.
func (s *Store) LogError() error { return s.log.err() }

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
