// SPDX-License-Identifier: Apache-2.0

// Package metadata keeps what a Strata root holds in one bbolt file: snapshots,
// their parents and children, the layers behind them and who refers to those,
// and which blob unpacks to which diffID.
//
// Transactions are explicit: every read and write takes a *Tx that View or
// Update hands out, and nothing hides one in a context. Writers that arrive
// together share one transaction and its fsync (group commit); a call that was
// answered is on disk.
//
// # Schema
//
// Numbers in keys are big endian, behind how many bytes they take, so that cursors walk
// them in order (number below; u64 has eight bytes). Names that have a number, as
// containerd's have, are packed with it (keys.go), so that new ones come last.
//
//	meta       "format"                 → {"version":2,"compatible":[],"incompatible":[]}
//	           "reserved"               → u64: numbers below this may have been handed out
//	names      packed name or key       → number
//	snapshots  number                   → record (record.go)
//	children   parent | child           → nothing
//	byref      hash of the snapshot.ref label | number → nothing
//	layers     number of the layer      → record (layer.go)
//	refs       layer | snapshot         → nothing
//	diffids    packed diffID            → number of the layer
//	blobs      packed blob digest       → packed diffID
//
// A snapshot is one compact value, not a nest of buckets: bbolt spends at least
// a page on a nested bucket once it no longer fits inline.
//
// # Log
//
// All buckets but the indexes are also in a log beside the file (log_file.go), and every
// transaction adds its changes there before it is committed. ReadSaved makes a new store
// of it when the file is lost. A store that is written to often has the log ahead: then it
// is the log that makes a transaction durable, and the file is made of it after a crash
// (ahead.go).
//
// bbolt panics on pages that make no sense; they are looked at before it opens the file
// (pages.go), and what it panics on later is ErrDataLoss.
//
// # Numbers
//
// Snapshots and layers share one sequence of numbers, which also name their
// directories. A number is reserved durably, in blocks, before anything is
// created under it, so a crash between a directory and its transaction can
// never lead to the number being used again.
package metadata
