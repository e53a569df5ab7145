// SPDX-License-Identifier: Apache-2.0

// Package archive turns layer tars into overlay layer directories and back. It
// knows tar streams, directories and overlay marks, and nothing of stores,
// snapshots or containerd's services.
//
// Apply extracts a layer alone, into a directory of its own that nobody else
// uses, knowing nothing of the layers below it. What only those can answer it
// returns as Needs; Answer asks them for it later and writes what it learns into
// a patch, a layer of directories only. ApplyOnto is the slow and general way: it
// extracts onto a directory that shows the layers below, such as a mount.
//
// Everything is done by descriptor below the directory that is given; no name
// from a tar is ever resolved by the host.
package archive
