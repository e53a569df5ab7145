// SPDX-License-Identifier: Apache-2.0

// Package snapshotter implements containerd's snapshots.Snapshotter and
// snapshots.Cleaner on a Strata root: it puts together what is remembered of a
// snapshot (metadata) with the directories it is made of (layerstore), and says
// how to mount them (overlayutil).
//
// Every change keeps to one order. What a transaction will name is made and
// synced first; what a transaction no longer names is moved to the trash
// afterwards. A crash in between leaves a directory without a name, which the
// next start or Cleanup finds, and never a name without a directory.
package snapshotter
