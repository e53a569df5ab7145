// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"math/bits"
	"slices"
)

// bitWriter writes DEFLATE by hand, also what no compressor would.
type bitWriter struct {
	buf []byte
	acc uint64
	n   uint
}

// bits appends the low n bits of v, at most 32, lowest first.
func (w *bitWriter) bits(v uint, n uint) {
	w.acc |= uint64(v&(1<<n-1)) << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.buf = append(w.buf, byte(w.acc))
		w.acc >>= 8
	}
}

// word appends a codeword of n bits, highest first.
func (w *bitWriter) word(v, n uint) {
	w.bits(uint(bits.Reverse32(uint32(v))>>(32-n)), n)
}

// bytes fills up the last byte and returns everything.
func (w *bitWriter) bytes() []byte {
	if w.n > 0 {
		w.bits(0, 8-w.n)
	}
	return w.buf
}

// header begins a block.
func (w *bitWriter) header(final bool, kind uint) {
	last := uint(0)
	if final {
		last = 1
	}
	w.bits(last|kind<<1, 3)
}

// stored writes a stored block.
func (w *bitWriter) stored(final bool, data []byte) {
	w.header(final, 0)
	w.buf = w.bytes()
	w.acc, w.n = 0, 0
	n := uint(len(data))
	w.bits(n|(^n&0xffff)<<16, 32)
	w.buf = append(w.buf, data...)
}

// litlen writes a symbol of the fixed code.
func (w *bitWriter) litlen(symbol uint) {
	switch {
	case symbol < 144:
		w.word(0x30+symbol, 8)
	case symbol < 256:
		w.word(0x190+symbol-144, 9)
	case symbol < 280:
		w.word(symbol-256, 7)
	default:
		w.word(0xc0+symbol-280, 8)
	}
}

// match writes a match in the fixed code.
func (w *bitWriter) match(length, dist uint) {
	symbol, extra, n := lengthSymbol(length)
	w.litlen(symbol)
	w.bits(extra, n)
	symbol, extra, n = distSymbol(dist)
	w.word(symbol, 5)
	w.bits(extra, n)
}

// lengthSymbol follows the table of RFC 1951, section 3.2.5, written down here so
// that the one under test is not checked against itself.
func lengthSymbol(length uint) (symbol, extra, n uint) {
	if length == 258 {
		return 285, 0, 0
	}
	bases := []uint{
		3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31,
		35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
	}
	i := slices.IndexFunc(bases, func(b uint) bool { return b > length }) - 1
	if i >= 8 {
		n = uint(i)/4 - 1
	}
	return uint(i) + 257, length - bases[i], n
}

func distSymbol(dist uint) (symbol, extra, n uint) {
	bases := []uint{
		1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025,
		1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577, 32769,
	}
	i := slices.IndexFunc(bases, func(b uint) bool { return b > dist }) - 1
	if i >= 4 {
		n = uint(i)/2 - 1
	}
	return uint(i), dist - bases[i], n
}

// dynamic writes the header of a dynamic block with any code lengths. The lengths
// themselves are written in a code that gives each of 0 to 15 four bits.
func (w *bitWriter) dynamic(final bool, litlens, dists []uint8) {
	w.header(final, 2)
	w.bits(uint(len(litlens)-257)&31, 5)
	w.bits(uint(len(dists)-1)&31, 5)
	w.bits(15, 4)
	for _, symbol := range codeLenOrder {
		if symbol < 16 {
			w.bits(4, 3)
		} else {
			w.bits(0, 3)
		}
	}
	for _, n := range litlens {
		w.word(uint(n), 4)
	}
	for _, n := range dists {
		w.word(uint(n), 4)
	}
}

// lens makes a list of code lengths: pairs of a symbol and its length.
func lens(size int, pairs ...int) []uint8 {
	l := make([]uint8, size)
	for i := 0; i < len(pairs); i += 2 {
		l[pairs[i]] = uint8(pairs[i+1])
	}
	return l
}
