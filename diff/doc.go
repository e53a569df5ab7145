// SPDX-License-Identifier: Apache-2.0

// Package diff is Strata's differ: containerd's diff.Applier and diff.Comparer on
// top of package archive.
//
// Apply reads a layer blob from containerd's content store, decompresses it in
// this process and extracts it. Into an active snapshot of Strata's own, which a
// Staging recognises, the layer is extracted alone; any other target is mounted
// and extracted onto as it shows itself.
//
// Compare makes a layer of what a snapshot changed. Of Strata's own snapshots it
// reads only the upper directory. Wherever that could be inexact both mounts are
// walked instead, by the code of containerd's walking differ.
//
// What of containerd is needed comes as Services: from the inside of containerd,
// or from a Client of its socket.
package diff
