// SPDX-License-Identifier: Apache-2.0

package inflate

import "math/bits"

// code is a Huffman code on its way into a table: its symbols in the order of
// their codewords, and how many have each length.
type code struct {
	count  [maxCodeLen + 1]uint16
	sorted [numFixed]uint16
	max    int
}

// sort fills c from the code lengths of all symbols. It reports whether the code
// is one to decode with: complete, or empty, or a single codeword of one bit. The
// last two are what compressors write when a block has no or one distance; any
// other incomplete code is refused, as zlib and compress/flate do.
func (c *code) sort(lens []uint8) bool {
	c.count = [maxCodeLen + 1]uint16{}
	for _, n := range lens {
		c.count[n&maxCodeLen]++
	}
	c.max = 0
	space := 0
	var start [maxCodeLen + 2]uint16
	for n := 1; n <= maxCodeLen; n++ {
		start[n+1] = start[n] + c.count[n]
		space += int(c.count[n]) << (maxCodeLen - n)
		if c.count[n] != 0 {
			c.max = n
		}
	}
	for symbol, n := range lens {
		if n != 0 {
			c.sorted[start[n]] = uint16(symbol)
			start[n]++
		}
	}
	single := c.max == 1 && c.count[1] == 1
	return c.max == 0 || single || space == 1<<maxCodeLen
}

// buildTable makes t decode the code given by lens, with the entries of symbols:
// 1<<primary entries looked up by the low bits of the input, the subtables for
// longer codes behind them. It reports whether the code is valid.
func buildTable[E uint32 | uint64](t []E, primary int, lens []uint8, symbols []E) bool {
	var c code
	if !c.sort(lens) {
		return false
	}
	if c.max <= 1 && c.count[1] < 2 {
		fillDegenerate(t[:1<<primary], &c, symbols)
		return true
	}
	b := builder[E]{t: t, primary: primary, symbols: symbols, code: &c}
	b.build()
	return true
}

// fillDegenerate is for the codes that leave input undefined: it is invalid.
func fillDegenerate[E uint32 | uint64](t []E, c *code, symbols []E) {
	for i := range t {
		t[i] = entryInvalid
	}
	if c.max == 0 {
		return
	}
	for i := 0; i < len(t); i += 2 {
		t[i] = symbols[c.sorted[0]] + (1 | 1<<entryCodeShift)
	}
}

// builder walks a complete code in the order of its codewords. DEFLATE sends
// codewords from their highest bit, tables are indexed from the lowest: word is
// the codeword reversed, and next counts it up reversed.
type builder[E uint32 | uint64] struct {
	t       []E
	primary int
	symbols []E
	code    *code
	word    int // reversed codeword
	n       int // its length
}

// build writes short codes once at their own length and doubles the filled part
// whenever the length grows, which is a copy: far cheaper than writing each code
// at every index that ends in it.
func (b *builder[E]) build() {
	sorted := b.code.sorted[:]
	filled := 1
	for b.n = 1; b.n <= min(b.code.max, b.primary); b.n++ {
		copy(b.t[filled:2*filled], b.t[:filled])
		filled *= 2
		length := E(b.n | b.n<<entryCodeShift)
		for range b.code.count[b.n] {
			b.t[b.word] = b.symbols[sorted[0]] + length
			sorted = sorted[1:]
			b.next()
		}
	}
	for ; filled < 1<<b.primary; filled *= 2 {
		copy(b.t[filled:2*filled], b.t[:filled])
	}
	if b.code.max > b.primary {
		b.subtables(sorted)
	}
}

// next counts the reversed codeword of length n up. After the last one it is 0.
func (b *builder[E]) next() {
	ones := 1<<b.n - 1
	if b.word == ones {
		b.word = 0
		return
	}
	bit := 1 << (bits.Len(uint(b.word^ones)) - 1)
	b.word = b.word&(bit-1) | bit
}

// subtables writes the codes longer than the primary table's index. Those that
// share their first bits stand next to each other, so one subtable is made at a time.
func (b *builder[E]) subtables(sorted []uint16) {
	start, end := 0, 1<<b.primary
	prefix := -1
	left := b.code.count
	for ; b.n <= b.code.max; b.n++ {
		length := E((b.n - b.primary) | (b.n-b.primary)<<entryCodeShift)
		for range b.code.count[b.n] {
			if p := b.word & (1<<b.primary - 1); p != prefix {
				prefix = p
				width := b.width(&left)
				start, end = end, end+1<<width
				b.t[prefix] = E(start)<<entryValue | entryLink | E(width)<<entryCodeShift | E(b.primary)
			}
			entry := b.symbols[sorted[0]] + length
			for i := start + b.word>>b.primary; i < end; i += 1 << (b.n - b.primary) {
				b.t[i] = entry
			}
			sorted = sorted[1:]
			left[b.n]--
			b.next()
		}
	}
}

// width is how many bits the subtable that begins with a code of length n needs:
// as many as the longest code in it, found by filling it up in thought.
func (b *builder[E]) width(left *[maxCodeLen + 1]uint16) int {
	width := b.n - b.primary
	for used := int(left[b.n]); used < 1<<width; {
		width++
		used = used<<1 + int(left[b.primary+width])
	}
	return width
}
