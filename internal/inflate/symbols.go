// SPDX-License-Identifier: Apache-2.0

package inflate

// The alphabets of DEFLATE (RFC 1951, section 3.2).
const (
	maxCodeLen  = 15
	numLitlen   = 286 // symbols that data may use; the fixed code has two more
	numDist     = 30  // as above
	numFixed    = 288
	numFixDist  = 32
	numCodeLens = 19
	endOfBlock  = 256
	maxMatch    = 258
	maxDist     = 32 << 10
)

// A table entry says what the low bits of the bit buffer mean:
//
//	bits 0-5    bits the entry takes off the buffer, extra bits included
//	bit  6      a literal
//	bits 8-11   bits of the code alone; for a link, the bits that index its subtable
//	bits 12-14  link to a subtable, end of block, invalid
//	bits 16-31  litlen: the literal; or 9 bits of length and 5 bits mask of the extra bits
//	            dist: mask of the extra bits
//	            both: where the subtable starts
//	bits 32-63  dist only: the distance without its extra bits
//
// Entries of the litlen table are 32 bits wide to keep it small in the cache.
const (
	entryBits      = 63
	entryLiteral   = 1 << 6
	entryCodeShift = 8
	entryCode      = 15
	entryLink      = 1 << 12
	entryEnd       = 1 << 13
	entryInvalid   = 1 << 14
	entryException = entryLink | entryEnd | entryInvalid
	entryValue     = 16
	entryMask      = 25
	entryLength    = 511
	entryDist      = 32
)

const (
	litlenBits = 11
	distBits   = 9
	// The tables with their subtables need at most 2342 and 594 entries for any
	// valid code; powers of two spare the fast loop its bounds checks.
	litlenSize = 1 << 12
	distSize   = 1 << 10
)

type (
	litlenTable [litlenSize]uint32
	distTable   [distSize]uint64
)

// The entries of all symbols but for the length of their codes.
var (
	litlenSymbols = makeLitlenSymbols()
	distSymbols   = makeDistSymbols()
	// A symbol of the code lengths' alphabet is looked up like a literal.
	codeLenSymbols = makeCodeLenSymbols()
)

// fixed holds the tables of the fixed code (RFC 1951, section 3.2.6).
var fixedLitlen, fixedDist = makeFixed()

func makeLitlenSymbols() (s [numFixed]uint32) {
	for i := range endOfBlock {
		s[i] = uint32(i)<<entryValue | entryLiteral
	}
	s[endOfBlock] = entryEnd
	base := uint32(3)
	for i := 257; i < 285; i++ {
		extra := uint32(0)
		if i >= 265 {
			extra = uint32(i-261) / 4
		}
		s[i] = (1<<extra-1)<<entryMask | base<<entryValue | extra
		base += 1 << extra
	}
	s[285] = maxMatch << entryValue
	s[286], s[287] = entryInvalid, entryInvalid
	return s
}

func makeDistSymbols() (s [numFixDist]uint64) {
	base := uint64(1)
	for i := range numDist {
		extra := uint64(0)
		if i >= 4 {
			extra = uint64(i-2) / 2
		}
		s[i] = base<<entryDist | (1<<extra-1)<<entryValue | extra
		base += 1 << extra
	}
	s[30], s[31] = entryInvalid, entryInvalid
	return s
}

func makeCodeLenSymbols() (s [numCodeLens]uint32) {
	for i := range s {
		s[i] = uint32(i) << entryValue
	}
	return s
}

func makeFixed() (*litlenTable, *distTable) {
	var lens [numFixed]uint8
	for i := range lens {
		switch {
		case i < 144, i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	var distLens [numFixDist]uint8
	for i := range distLens {
		distLens[i] = 5
	}
	litlen, dist := new(litlenTable), new(distTable)
	buildTable(litlen[:], litlenBits, lens[:], litlenSymbols[:])
	buildTable(dist[:], distBits, distLens[:], distSymbols[:])
	return litlen, dist
}
