// SPDX-License-Identifier: Apache-2.0

package failpoint

// Point is a step. Those named as something that is done come after it, and can't fail.
type Point string

// Directories of active snapshots.
const (
	SnapshotPlace  Point = "snapshot-place" // staging/N → snapshots/N
	SnapshotPlaced Point = "snapshot-placed"
	SnapshotReset  Point = "snapshot-reset" // fs and work, each to the trash
	SealWrite      Point = "seal-write"
	SealWritten    Point = "seal-written"
)

// Directories of layers.
const (
	LayerManifest   Point = "layer-manifest" // layer.json is written
	LayerPlace      Point = "layer-place"    // snapshots/N → layers/N
	LayerPlaced     Point = "layer-placed"
	LayerSynced     Point = "layer-synced"
	LayerUnplace    Point = "layer-unplace" // layers/N → snapshots/N
	LayerUnplaced   Point = "layer-unplaced"
	LayerDropWork   Point = "layer-drop-work"
	PatchStage      Point = "patch-stage"
	PatchFound      Point = "patch-found" // another chain's; what was staged goes to the trash
	PatchPlace      Point = "patch-place" // staging/N → layers/N
	PatchPlaced     Point = "patch-placed"
	ExternalNote    Point = "external-note"
	ExternalPlace   Point = "external-place" // staging/N → layers/N
	ExternalPlaced  Point = "external-placed"
	ExternalAttach  Point = "external-attach" // the mount
	ExternalForget  Point = "external-forget" // the note, after the layer is in the trash
	TrashMove       Point = "trash-move"      // anything → trash
	TrashMoved      Point = "trash-moved"
	TrashDelete     Point = "trash-delete"
	SweepSnapshots  Point = "sweep-snapshots"
	SweepLayers     Point = "sweep-layers"
	SweepStaging    Point = "sweep-staging"
	RecoverDropWork Point = "recover-drop-work"
)

// Transactions, before and after they are committed.
const (
	PrepareRecord   Point = "prepare-record"
	PrepareRecorded Point = "prepare-recorded"
	UseRecord       Point = "use-record" // a layer that is here gets a snapshot: shared or staged
	UseRecorded     Point = "use-recorded"
	AdoptRecord     Point = "adopt-record" // by Apply
	AdoptRecorded   Point = "adopt-recorded"
	PromoteRecord   Point = "promote-record"
	PromoteRecorded Point = "promote-recorded"
	ExtractMounted  Point = "extract-mounted" // the directory is empty, the seal says what to extract
	CommitReady     Point = "commit-ready"    // all but the renames and transactions is done
	CommitAdopt     Point = "commit-adopt"
	CommitAdopted   Point = "commit-adopted"
	CommitUnstage   Point = "commit-unstage"
	CommitUnstaged  Point = "commit-unstaged"
	CommitRecord    Point = "commit-record"
	CommitRecorded  Point = "commit-recorded"
	RemoveRecord    Point = "remove-record"
	RemoveRecorded  Point = "remove-recorded"
)

// Where metadata.log is ahead of metadata.db.
const (
	TransactionLogged Point = "transaction-logged" // metadata.db does not have it yet
	RecoverWritten    Point = "recover-written"    // metadata.db.tmp is what the log says
	RecoverPlaced     Point = "recover-placed"     // metadata.db is, and the log is still ahead
)

// Rebuilding metadata.db.
const (
	RebuildWrite  Point = "rebuild-write" // metadata.db.tmp
	RebuildKeep   Point = "rebuild-keep"  // what is not known any more
	RebuildAside  Point = "rebuild-aside" // metadata.db → metadata.db.damaged-TIME
	RebuildPlace  Point = "rebuild-place" // metadata.db.tmp → metadata.db
	RebuildPlaced Point = "rebuild-placed"
)

// RebuildPoints returns the points of rebuilding metadata.db, which nothing else comes to.
func RebuildPoints() []Point {
	return []Point{RebuildWrite, RebuildKeep, RebuildAside, RebuildPlace, RebuildPlaced}
}

// Extracting a damaged layer again.
const (
	RepairExtract Point = "repair-extract" // into staging/N
	RepairPlace   Point = "repair-place"   // staging/N → layers/N
	RepairPlaced  Point = "repair-placed"
	RepairSwap    Point = "repair-swap" // the transaction
	RepairSwapped Point = "repair-swapped"
)

// RepairPoints returns the points of extracting a damaged layer again, which nothing else
// comes to.
func RepairPoints() []Point {
	return []Point{RepairExtract, RepairPlace, RepairPlaced, RepairSwap, RepairSwapped}
}

// Points returns all points that serving snapshots comes to.
func Points() []Point {
	return []Point{
		SnapshotPlace, SnapshotPlaced, SnapshotReset, SealWrite, SealWritten,
		LayerManifest, LayerPlace, LayerPlaced, LayerSynced, LayerUnplace, LayerUnplaced, LayerDropWork,
		PatchStage, PatchFound, PatchPlace, PatchPlaced,
		ExternalNote, ExternalPlace, ExternalPlaced, ExternalAttach, ExternalForget,
		TrashMove, TrashMoved, TrashDelete, SweepSnapshots, SweepLayers, SweepStaging, RecoverDropWork,
		PrepareRecord, PrepareRecorded, UseRecord, UseRecorded, AdoptRecord, AdoptRecorded, PromoteRecord, PromoteRecorded,
		ExtractMounted, CommitReady, CommitAdopt, CommitAdopted, CommitUnstage, CommitUnstaged, CommitRecord, CommitRecorded,
		RemoveRecord, RemoveRecorded,
		TransactionLogged, RecoverWritten, RecoverPlaced,
	}
}
