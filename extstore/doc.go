// SPDX-License-Identifier: Apache-2.0

// Package extstore reads and writes additional layer stores: directories of
// layers by diffID that many nodes use at once, from an image of the operating
// system, a network file system or a cloud volume.
//
//	DIR/strata-store.json          what it is: format and version
//	DIR/layers/ALGORITHM/HEX/      a layer, named by its diffID
//	  fs/                          the overlay layer directory
//	  index                        every entry of fs, one a line: what the digests are of
//	  layer.json                   what it is; a layer without it is not complete
//	DIR/blobs/ALGORITHM/HEX        the diffID that a blob unpacks to
//	DIR/.export-*                  an export under way
//
// [Set] looks layers up. It takes no locks, writes nothing, works on read-only
// file systems, and never fails because of a store: what is absent, damaged or
// half written is skipped, with one warning and a count. [Export] writes a
// layer, so that a crash leaves none or all of it.
//
// # The index
//
// A directory is listed with its entries sorted by name, then its
// subdirectories in that order, each in the same way; the root comes first, as
// ".". A line is
//
//	path type mode uid gid size mtime rdev target link xattrs content
//
// Names and values are quoted as in Go, with ASCII characters only and spaces
// as \x20; "-" stands for what an entry does not have. The mode is octal, the
// time in nanoseconds after the dot. target is that of a symbolic link, link
// the first name of a file with several. content is the SHA-256 of a file. Of
// attributes those are listed that a layer can have and overlay's marks; labels
// and signatures belong to a host.
//
// tree.full in layer.json is the SHA-256 of the index, tree.metadata that of
// the index without its last column.
package extstore
