// SPDX-License-Identifier: Apache-2.0

// Package layerindex records what is in a layer directory, and holds a directory
// against such a record.
//
// An index is one file of one layer. It has a record for every entry, the layer's root
// included, in no particular order:
//
//	header   magic, version
//	blocks   length, checksum, records
//	blocks   length, checksum, amendments: records that replace earlier ones
//	trailer  number of records, where the amendments begin, checksum
//
// Blocks have checksums of their own, so that a reader believes nothing that is
// damaged, and reads the file once. Within a block a path is given by how many bytes it
// has in common with the one before. Numbers are little endian, or varints
// (encoding/binary). All checksums are xxHash64 with the seed 0: they find what changed
// by accident or by mistake, and prove nothing against somebody who means it.
//
// Writer and Reader need memory for a block, however large the layer is. A record says
// what stood on the disk, in the ids of the process's user namespace.
package layerindex
