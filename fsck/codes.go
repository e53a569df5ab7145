// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"maps"
	"slices"

	"github.com/strata-snapshotter/strata/metadata"
)

// Codes of findings that are not inside of metadata.db; those are in package metadata.
const (
	CodeDBMissing           Code = "db-missing"
	CodeDBUnreadable        Code = "db-unreadable"
	CodeReservedUnreadable  Code = "reserved-unreadable"
	CodeNumberUnreserved    Code = "number-unreserved"
	CodeLayerMissing        Code = "layer-missing"
	CodeLayerFSMissing      Code = "layer-fs-missing"
	CodeLayerOrphan         Code = "layer-orphan"
	CodeLayerMounted        Code = "layer-mounted"
	CodePublishInterrupted  Code = "publish-interrupted"
	CodeCommitInterrupted   Code = "commit-interrupted"
	CodeWorkLeft            Code = "work-left"
	CodeManifestMissing     Code = "manifest-missing"
	CodeManifestUnreadable  Code = "manifest-unreadable"
	CodeManifestFormat      Code = "manifest-format"
	CodeManifestNumber      Code = "manifest-number"
	CodeManifestDiffID      Code = "manifest-diffid"
	CodeManifestPatch       Code = "manifest-patch"
	CodeManifestFlags       Code = "manifest-flags"
	CodeManifestNeeds       Code = "manifest-needs"
	CodeUsageLayer          Code = "usage-layer"
	CodeUsageSnapshot       Code = "usage-snapshot"
	CodeUsageMeasured       Code = "usage-measured"
	CodeDataMissing         Code = "data-missing"
	CodeDataUnexpected      Code = "data-unexpected"
	CodeDataType            Code = "data-type"
	CodeDataMode            Code = "data-mode"
	CodeDataOwner           Code = "data-owner"
	CodeDataSize            Code = "data-size"
	CodeDataTime            Code = "data-mtime"
	CodeDataXattr           Code = "data-xattr"
	CodeDataLink            Code = "data-link"
	CodeDataContent         Code = "data-content"
	CodeIndexDamaged        Code = "index-damaged"
	CodeIndexAbsent         Code = "index-absent"
	CodeExternalNoteMissing Code = "external-note-missing"
	CodeExternalNoteWrong   Code = "external-note-wrong"
	CodeExternalNoteOrphan  Code = "external-note-orphan"
	CodeExternalStore       Code = "external-store-missing"
	CodeExternalUnmounted   Code = "external-not-mounted"
	CodeSnapshotMissing     Code = "snapshot-missing"
	CodeSnapshotFSMissing   Code = "snapshot-fs-missing"
	CodeSnapshotWorkMissing Code = "snapshot-work-missing"
	CodeSnapshotOrphan      Code = "snapshot-orphan"
	CodeSealUnreadable      Code = "seal-unreadable"
	CodeDirMissing          Code = "dir-missing"
	CodeDirInvalid          Code = "dir-invalid"
	CodeDirMode             Code = "dir-mode"
	CodeEmptyUsed           Code = "empty-used"
	CodeStagingLeft         Code = "staging-left"
	CodeTrashLeft           Code = "trash-left"
	CodeTemporaryLeft       Code = "temporary-left"
	CodeUnknownFile         Code = "unknown-file"
	CodeMountUnknown        Code = "mount-unknown"
	CodeVolatileLost        Code = "volatile-lost"
	CodeVolatileLeft        Code = "volatile-left"
)

type rule struct {
	severity Severity
	advice   string
}

const (
	adviseRepair   = "repair"
	adviseStart    = "repair, or start the daemon, which sees to it"
	advisePull     = "remove the images and containers that are named and pull again"
	adviseRemove   = "remove the snapshot; what it held is gone"
	adviseWatch    = "find out who changed it; nothing here can tell which side is right. Remove the images and containers that are named and pull again"
	adviseRebuild  = "restore metadata.db from a copy, or start with an empty root; it can't be made from the directories yet"
	adviseStranger = "move it away if it is not yours; Strata leaves it alone"
)

// rules says of each code what it means.
var rules = map[Code]rule{
	CodeDBMissing:           {Damage, adviseRebuild},
	CodeDBUnreadable:        {Damage, adviseRebuild},
	CodeReservedUnreadable:  {Damage, adviseRepair},
	CodeNumberUnreserved:    {Damage, adviseRepair},
	CodeLayerMissing:        {Damage, advisePull},
	CodeLayerFSMissing:      {Damage, advisePull},
	CodeLayerOrphan:         {Leftover, adviseStart},
	CodeLayerMounted:        {Damage, "unmount it: what is mounted there hides the layer"},
	CodePublishInterrupted:  {Leftover, adviseStart},
	CodeCommitInterrupted:   {Leftover, adviseStart},
	CodeWorkLeft:            {Leftover, adviseStart},
	CodeManifestMissing:     {Damage, adviseRepair},
	CodeManifestUnreadable:  {Damage, adviseRepair},
	CodeManifestFormat:      {Damage, "use the Strata that wrote it"},
	CodeManifestNumber:      {Damage, adviseWatch},
	CodeManifestDiffID:      {Damage, adviseWatch},
	CodeManifestPatch:       {Damage, adviseWatch},
	CodeManifestFlags:       {Damage, adviseWatch},
	CodeManifestNeeds:       {Damage, advisePull},
	CodeUsageLayer:          {Damage, adviseRepair},
	CodeUsageSnapshot:       {Hint, adviseRepair},
	CodeUsageMeasured:       {Hint, "repair, if the figures matter: file systems count blocks differently over time"},
	CodeDataMissing:         {Damage, advisePull},
	CodeDataUnexpected:      {Damage, advisePull},
	CodeDataType:            {Damage, advisePull},
	CodeDataMode:            {Damage, advisePull},
	CodeDataOwner:           {Damage, advisePull},
	CodeDataSize:            {Damage, advisePull},
	CodeDataTime:            {Damage, advisePull},
	CodeDataXattr:           {Damage, advisePull},
	CodeDataLink:            {Damage, advisePull},
	CodeDataContent:         {Damage, advisePull},
	CodeIndexDamaged:        {Damage, advisePull},
	CodeIndexAbsent:         {Hint, "nothing needs to be done: other differs, containers and earlier versions leave none"},
	CodeExternalNoteMissing: {Damage, adviseRepair},
	CodeExternalNoteWrong:   {Damage, adviseRepair},
	CodeExternalNoteOrphan:  {Leftover, adviseStart},
	CodeExternalStore:       {Damage, "mount the additional store, or export the layer to it again"},
	CodeExternalUnmounted:   {Hint, "the daemon mounts it when it starts"},
	CodeSnapshotMissing:     {Damage, adviseRemove},
	CodeSnapshotFSMissing:   {Damage, adviseRemove},
	CodeSnapshotWorkMissing: {Damage, adviseRepair},
	CodeSnapshotOrphan:      {Leftover, adviseStart},
	CodeSealUnreadable:      {Damage, "remove the snapshot and pull again"},
	CodeDirMissing:          {Hint, adviseStart},
	CodeDirInvalid:          {Damage, "move it away and repair"},
	CodeDirMode:             {Damage, adviseRepair},
	CodeEmptyUsed:           {Damage, adviseRepair},
	CodeStagingLeft:         {Leftover, adviseStart},
	CodeTrashLeft:           {Leftover, adviseStart},
	CodeTemporaryLeft:       {Leftover, adviseRepair},
	CodeUnknownFile:         {Hint, adviseStranger},
	CodeMountUnknown:        {Hint, "a container may still run on it; it goes with the mount"},
	CodeVolatileLost:        {Damage, "remove the images of this snapshotter and the root, and pull again"},
	CodeVolatileLeft:        {Hint, "the daemon makes everything durable when it starts"},

	metadata.ProblemBucketMissing:      {Damage, adviseRepair},
	metadata.ProblemBucketUnknown:      {Hint, adviseStranger},
	metadata.ProblemSnapshotUnreadable: {Damage, adviseRebuild},
	metadata.ProblemLayerUnreadable:    {Damage, adviseRepair},
	metadata.ProblemIndexUnreadable:    {Damage, adviseRepair},
	metadata.ProblemBlobUnreadable:     {Damage, adviseRepair},
	metadata.ProblemSnapshotInvalid:    {Damage, adviseRemove},
	metadata.ProblemNameMissing:        {Damage, adviseRepair},
	metadata.ProblemNameWrong:          {Damage, adviseRepair},
	metadata.ProblemNameTwice:          {Damage, adviseRebuild},
	metadata.ProblemNameOrphan:         {Damage, adviseRepair},
	metadata.ProblemParentMissing:      {Damage, adviseRemove},
	metadata.ProblemParentInvalid:      {Damage, adviseRemove},
	metadata.ProblemParentCycle:        {Damage, adviseRebuild},
	metadata.ProblemChildMissing:       {Damage, adviseRepair},
	metadata.ProblemChildOrphan:        {Damage, adviseRepair},
	metadata.ProblemByRefMissing:       {Damage, adviseRepair},
	metadata.ProblemByRefOrphan:        {Damage, adviseRepair},
	metadata.ProblemRefMissing:         {Damage, adviseRepair},
	metadata.ProblemRefOrphan:          {Damage, adviseRepair},
	metadata.ProblemLayerUnknown:       {Damage, adviseRepair},
	metadata.ProblemLayerUnreferenced:  {Leftover, adviseRepair},
	metadata.ProblemDiffIDMissing:      {Damage, adviseRepair},
	metadata.ProblemDiffIDWrong:        {Damage, adviseRepair},
	metadata.ProblemDiffIDTwice:        {Hint, "nothing needs to be done: the layer that the index does not name goes with its snapshots"},
	metadata.ProblemDiffIDOrphan:       {Damage, adviseRepair},
}

// Codes returns all codes that there are, in alphabetical order.
func Codes() []Code { return slices.Sorted(maps.Keys(rules)) }
