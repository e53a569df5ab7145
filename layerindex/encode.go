// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"encoding/binary"
)

const (
	// magic begins an index; its last byte is the version.
	magic = "strindx\x01"
	// trailerMagic begins the trailer.
	trailerMagic = "strindxE"

	blockHeader = 4 + 8         // length of the payload, its checksum
	trailerSize = 8 + 8 + 8 + 8 // magic, records, offset of the amendments, checksum

	// blockSize is what a block has before it is written. It can have one record more.
	blockSize = 64 << 10
	// maxBlock bounds what a reader allocates. One record can have a path and a link of
	// 1 MiB (config.MaxPathBytes) and the names of 64 KiB of attributes.
	maxBlock = 4 << 20
	// maxAmended bounds the amendments in bytes: a reader has them all in memory.
	maxAmended = 1 << 20
)

// Flags beside the type, in its byte.
const (
	typeMask   = 0x0f
	flagSparse = 0x10
	flagXattrs = 0x20
)

// appendRecord adds r to b. before is the path of the record before it in the block.
func appendRecord(b []byte, before string, r *Record) []byte {
	kind := byte(r.Type)
	if r.Sparse {
		kind |= flagSparse
	}
	if len(r.Xattrs) > 0 && r.Type.hasAttrs() {
		kind |= flagXattrs
	}
	b = append(b, kind)
	n := shared(before, r.Path)
	b = binary.AppendUvarint(b, uint64(n))
	b = appendString(b, r.Path[n:])
	if r.Type.hasAttrs() {
		b = appendAttrs(b, r)
	}
	switch r.Type {
	case Regular:
		b = binary.AppendUvarint(b, uint64(r.Size))
		b = binary.LittleEndian.AppendUint64(b, r.Sum)
	case Symlink, Link:
		b = appendString(b, r.Link)
	case Char, Block:
		b = binary.AppendUvarint(b, uint64(r.Major))
		b = binary.AppendUvarint(b, uint64(r.Minor))
	default: // there is no more to say of the others
	}
	if kind&flagXattrs != 0 {
		b = appendXattrs(b, r.Xattrs)
	}
	return b
}

func appendAttrs(b []byte, r *Record) []byte {
	b = binary.AppendUvarint(b, uint64(r.Mode))
	b = binary.AppendUvarint(b, uint64(r.UID))
	b = binary.AppendUvarint(b, uint64(r.GID))
	b = binary.AppendVarint(b, r.Sec)
	return binary.AppendUvarint(b, uint64(r.Nsec))
}

func appendXattrs(b []byte, xattrs []Xattr) []byte {
	b = binary.AppendUvarint(b, uint64(len(xattrs)))
	for _, x := range xattrs {
		b = appendString(b, x.Name)
		b = binary.AppendUvarint(b, uint64(x.Size))
		b = binary.LittleEndian.AppendUint64(b, x.Sum)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// shared is how many bytes two paths begin with alike.
func shared(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
