// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// checkTimeout is short: who checks holds the lock of the root, so nobody else can have
// the file open for long.
const checkTimeout = time.Second

// Problem is something in metadata.db that contradicts the rest of it.
type Problem struct {
	// Code is stable, see the constants.
	Code string
	// Number is that of the snapshot or layer in question, 0 for none.
	Number uint64
	// Key is the name, diffID or bucket in question, if there is one.
	Key string
	// Text says what is wrong, in a sentence.
	Text string
	// Fixes put it right. None: that takes more than what is in metadata.db.
	Fixes []Fix

	bucket string // what all of it is about
}

// The codes of problems. They are part of the interface: programs compare them.
const (
	ProblemBucketMissing      = "db-bucket-missing"
	ProblemBucketUnknown      = "db-bucket-unknown"
	ProblemSnapshotUnreadable = "snapshot-unreadable"
	ProblemLayerUnreadable    = "layer-unreadable"
	ProblemIndexUnreadable    = "index-unreadable"
	ProblemBlobUnreadable     = "blob-unreadable"
	ProblemSnapshotInvalid    = "snapshot-invalid"
	ProblemNameMissing        = "name-missing"
	ProblemNameWrong          = "name-wrong"
	ProblemNameTwice          = "name-twice"
	ProblemNameOrphan         = "name-orphan"
	ProblemParentMissing      = "parent-missing"
	ProblemParentInvalid      = "parent-not-committed"
	ProblemParentCycle        = "parent-cycle"
	ProblemChildMissing       = "child-missing"
	ProblemChildOrphan        = "child-orphan"
	ProblemByRefMissing       = "byref-missing"
	ProblemByRefOrphan        = "byref-orphan"
	ProblemRefMissing         = "ref-missing"
	ProblemRefOrphan          = "ref-orphan"
	ProblemLayerUnknown       = "layer-unknown"
	ProblemLayerUnreferenced  = "layer-unreferenced"
	ProblemDiffIDMissing      = "diffid-missing"
	ProblemDiffIDWrong        = "diffid-wrong"
	ProblemDiffIDTwice        = "diffid-twice"
	ProblemDiffIDOrphan       = "diffid-orphan"
)

// Contents is all that metadata.db says, and where it contradicts itself.
type Contents struct {
	// Snapshots and Layers are those that can be read, by their numbers. The name of
	// a snapshot's parent is not filled in.
	Snapshots map[uint64]Snapshot
	Layers    map[uint64]Layer
	// Blobs are those that are known, and the diffIDs of their layers.
	Blobs map[digest.Digest]digest.Digest
	// LayersUnreadable are layers whose record can't be read.
	LayersUnreadable map[uint64]bool
	// SnapshotsUnreadable are snapshots whose record can't be read.
	SnapshotsUnreadable map[uint64]bool
	// Incomplete: snapshots can't be read. What nothing seems to refer to may be theirs.
	Incomplete bool
	// Reserved is the mark that all numbers are below. ReservedUnreadable: it is damaged.
	Reserved           uint64
	ReservedUnreadable bool
	Problems           []Problem

	last uint64 // transaction
}

// Inspect reads all of the store at path, without changing a byte of it, and holds its
// parts against each other. It keeps what it read in memory. What is read of a store that
// was not closed is what its log says, if that is ahead.
//
// ErrNotFound: there is no store. ErrDataLoss: it can't be read as a whole.
// ErrFailedPrecondition: it is none of ours, or of a newer Strata. ErrUnavailable:
// somebody has it open.
func Inspect(path string) (c *Contents, err error) {
	lock, err := lockAhead(path, true, checkTimeout)
	if err != nil {
		return nil, err
	}
	if lock != nil {
		c, err := inspectAhead(path)
		return c, errors.Join(err, lock.Close())
	}
	exists, err := inspect(path, checkTimeout)
	if err != nil {
		return nil, err
	}
	if !exists {
		return nil, fmt.Errorf("%s does not exist or is empty: %w", path, errdefs.ErrNotFound)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: checkTimeout})
	if err != nil {
		return nil, openError(path, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return inspectDB(path, db)
}

// inspectDB turns a page that makes no sense, which bbolt panics on, into an error.
func inspectDB(path string, db *bolt.DB) (c *Contents, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recoverDamage(path, &err)
	s := newScan()
	if err := db.View(s.read); err != nil {
		return nil, err
	}
	s.judge()
	return s.c, nil
}
