// SPDX-License-Identifier: Apache-2.0

// Package storeview looks into a Strata store that anybody may be using: the root of a
// daemon, running or not, or a store of images with a root in it. Nothing is locked, and
// nothing is written.
//
// [Open] reads one state of metadata.db and works out who holds what: [Holder] are those
// that keep layers from being removed. Names of images and containers come from whoever
// keeps them; a root alone knows the names of snapshots only.
//
// Sizes are bytes on disk, as stat(2) counts blocks, and were counted when a layer was
// made; what containers write is counted when it is asked for.
package storeview
