// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// sparseBlock is the unit in which a sparse file is summed.
const sparseBlock = 4096

// Hash sums the content of a file: all of its bytes, or, of one with holes, all blocks
// of 4096 bytes that are not zero, each after its number. So a file that claims to be
// larger than any disk costs no more than what is in it, and it does not matter whether
// a file system keeps a hole as one.
type Hash struct {
	digest xxhash.Digest
	sparse *sparse
}

// sparse is the block that is being put together.
type sparse struct {
	block [sparseBlock]byte
	index int64
}

// NewHash returns a Hash of a file without holes.
func NewHash() *Hash {
	h := &Hash{}
	h.digest.Reset()
	return h
}

// NewSparseHash returns a Hash of a file with holes.
func NewSparseHash() *Hash {
	h := NewHash()
	h.sparse = &sparse{}
	return h
}

// Sum is what a Hash of a file without holes makes of its content.
func Sum(content []byte) uint64 { return xxhash.Sum64(content) }

// Add adds what is in the file at offset, in bytes. Offsets rise; without holes they
// leave nothing out.
func (h *Hash) Add(content []byte, offset int64) {
	if h.sparse == nil {
		_, _ = h.digest.Write(content) // never fails, see hash.Hash
		return
	}
	for len(content) > 0 {
		if index := offset / sparseBlock; index != h.sparse.index {
			h.endBlock()
			h.sparse.index = index
		}
		n := copy(h.sparse.block[offset%sparseBlock:], content)
		content, offset = content[n:], offset+int64(n)
	}
}

func (h *Hash) endBlock() {
	if h.sparse.block == [sparseBlock]byte{} {
		return
	}
	var index [8]byte
	binary.LittleEndian.PutUint64(index[:], uint64(h.sparse.index))
	_, _ = h.digest.Write(index[:]) // never fails, see hash.Hash
	_, _ = h.digest.Write(h.sparse.block[:])
	h.sparse.block = [sparseBlock]byte{}
}

// Sum64 is the checksum. Nothing is added after it.
func (h *Hash) Sum64() uint64 {
	if h.sparse != nil {
		h.endBlock()
	}
	return h.digest.Sum64()
}
