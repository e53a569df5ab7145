// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// FormatVersion is the version of the schema that this package writes. It only
// grows when an older program could not even tell which features are in use.
const FormatVersion = 2

// Format says what a program must know to use a store.
type Format struct {
	Version int `json:"version"`
	// Compatible names features that a program may ignore.
	Compatible []string `json:"compatible,omitempty"`
	// Incompatible names features that a program must know to touch the store.
	Incompatible []string `json:"incompatible,omitempty"`
}

// knownIncompatible lists the incompatible features this package understands.
var knownIncompatible = []string{featureAhead}

// check refuses what a newer Strata wrote and this one does not understand.
func (f Format) check(path string) error {
	if f.Version > FormatVersion {
		return fmt.Errorf("%s has format version %d and this program knows up to %d: use the newer Strata that wrote it: %w",
			path, f.Version, FormatVersion, errdefs.ErrFailedPrecondition)
	}
	if f.Version == 1 {
		return fmt.Errorf("%s was written before Strata's first release, in a form that is no longer read: start with an empty root: %w",
			path, errdefs.ErrFailedPrecondition)
	}
	if f.Version < 1 {
		return fmt.Errorf("%s has no valid format version: it is no Strata store or it is damaged: %w", path, errdefs.ErrDataLoss)
	}
	for _, name := range f.Incompatible {
		if !slices.Contains(knownIncompatible, name) {
			return fmt.Errorf("%s uses the feature %q, which this program does not know: use the newer Strata that wrote it: %w",
				path, name, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

// inspect reads the format of an existing store without writing a byte to it:
// a store from the future must stay as it is. A file that does not exist, or
// that a crash left empty before its first transaction, is no store yet.
func inspect(path string, timeout time.Duration) (exists bool, err error) {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || (err == nil && st.Size() == 0) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f, found, err := readFormat(path, timeout)
	if err != nil || !found {
		return false, err
	}
	if err := f.check(path); err != nil {
		return true, err
	}
	return true, f.checkLog(path)
}

// checkLog refuses a metadata.db that says it may not be believed where the log, which
// would know, can't be asked.
func (f Format) checkLog(path string) error {
	if !slices.Contains(f.Incompatible, featureAhead) {
		return nil
	}
	if _, err := logState(path); err != nil {
		return damaged(path, fmt.Errorf("it was not closed, and its log is lost: %w", err))
	}
	return nil
}

// CheckFormat says whether Open would take the store at path, as far as its format tells,
// and changes nothing. No store is one that Open makes.
//
// ErrFailedPrecondition: a newer Strata wrote it. ErrDataLoss: it can't be read.
// ErrUnavailable: another process holds it.
func CheckFormat(path string) error {
	lock, err := lockAhead(path, true, openTimeout)
	if err != nil {
		return err
	}
	if lock != nil {
		_, err := aheadOf(path)
		return errors.Join(err, lock.Close())
	}
	_, err = inspect(path, openTimeout)
	return err
}

func readFormat(path string, timeout time.Duration) (f Format, found bool, err error) {
	// A cut-off file is mapped beyond its end; touching it there is a fault
	// that would end the process if it did not become a panic first.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recoverDamage(path, &err)
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: timeout})
	if err != nil {
		return f, false, openError(path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := checkPages(path, db.Info().PageSize); err != nil {
		return f, false, damaged(path, err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return emptyOrForeign(path, tx)
		}
		found = true
		f, err = decodeFormat(path, meta.Get(keyFormat))
		return err
	})
	return f, found, err
}

// emptyOrForeign tells a store whose first transaction never happened from a
// bbolt file of somebody else, which must not be filled with our buckets.
func emptyOrForeign(path string, tx *bolt.Tx) error {
	if k, _ := tx.Cursor().First(); k != nil {
		return fmt.Errorf("%s is a bbolt file but no Strata store (it has a bucket %q): %w", path, k, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%s is in use by another process: %w", path, errdefs.ErrUnavailable)
	case errdefs.IsDataLoss(err):
		return err
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch), tooSmall(path):
		return damaged(path, err)
	case isFull(err):
		return writeError(path, err)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// tooSmall says whether a file can't hold the two meta pages, of which bbolt has no error
// that can be told from others.
func tooSmall(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Size() > 0 && st.Size() < 2*int64(os.Getpagesize())
}

// recoverDamage is deferred where bbolt reads: it panics on what makes no sense to it, and
// touching what can't be read is a fault.
func recoverDamage(path string, err *error) {
	if p := recover(); p != nil {
		*err = damaged(path, fmt.Errorf("%v", p))
	}
}

func damaged(path string, err error) error {
	return fmt.Errorf("%s is damaged: %w (%w)", path, err, errdefs.ErrDataLoss)
}
