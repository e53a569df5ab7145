// SPDX-License-Identifier: Apache-2.0

// Package layerstore keeps the directories of a Strata root: layers, the
// writable directories of active snapshots, and what is on its way in or out.
// It knows numbers and directories, and nothing of names, chains or references.
//
//	ROOT/                     0700
//	  lock                    flock: one process owns a root
//	  metadata.db             not this package's
//	  layers/N/fs             a published layer, never written to again
//	  layers/N/layer.json     what it is
//	  layers/N/index          everything in it, see package layerindex
//	  snapshots/N/{fs,work}   an active snapshot: upperdir and workdir
//	  staging/N               a directory being put together
//	  trash/N                 removed, waiting to be deleted
//	  external/N              of a layer in an additional store: where that is
//	  empty/                  an empty directory: the second lower of a one-layer view
//
// # Order of writes
//
// What metadata.db names is complete and durable: a directory is put together
// in staging, renamed to its place and the place is synced, and only then is
// the transaction committed. Removal is the other way round: first the
// transaction, then a rename to the trash, then, in the background, deletion.
// A crash in between leaves a directory that nothing names, which Sweep moves
// to the trash, and never a name without its directory.
//
// Everything is done by descriptor, from the directories that Open opened.
package layerstore
