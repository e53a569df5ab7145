// SPDX-License-Identifier: Apache-2.0

package inflate

const (
	// codeLenBits is the longest code of the code lengths, so its table has no subtables.
	codeLenBits = 7
	repeatLast  = 16
	repeatZero  = 17
	repeatZeros = 18
)

// codeLenOrder is the order of RFC 1951, section 3.2.7.
var codeLenOrder = [numCodeLens]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// headerTable decodes the code lengths of a dynamic block.
type headerTable [1 << codeLenBits]uint32

// blockHeader reads what stands before a block's data and sets the next step.
func (f *inflater) blockHeader() error {
	header, err := f.take(3)
	if err != nil {
		return err
	}
	f.final = header&1 != 0
	switch header >> 1 {
	case 0:
		return f.storedHeader()
	case 1:
		f.litlen, f.dist = fixedLitlen, fixedDist
	case 2:
		if err := f.dynamicHeader(); err != nil {
			return err
		}
		f.litlen, f.dist = &f.ownLitlen, &f.ownDist
	default:
		return f.corrupt("unknown block type")
	}
	f.step = stepCodes
	return nil
}

// storedHeader reads a stored block's length and its complement, which begin at
// the next whole byte.
func (f *inflater) storedHeader() error {
	f.unread()
	f.bits, f.nbits = 0, 0
	n, err := f.take(16)
	if err != nil {
		return err
	}
	complement, err := f.take(16)
	if err != nil {
		return err
	}
	if n^complement != 0xffff {
		return f.corrupt("length of a stored block")
	}
	f.unread()
	f.stored, f.step = n, stepStored
	return nil
}

// storedBlock copies what is there of a stored block.
func (f *inflater) storedBlock() error {
	in, out := &f.in, &f.out
	for f.stored > 0 {
		room := out.limit() - out.pos
		if room == 0 {
			return errChunkFull
		}
		in.fill(1)
		if in.pos >= in.end {
			return f.inputError()
		}
		n := copy(out.buf[out.pos:out.pos+min(room, f.stored)], in.buf[in.pos:in.end])
		in.pos += n
		out.pos += n
		f.stored -= n
	}
	f.endBlock()
	return nil
}

// dynamicHeader reads the two codes of a dynamic block (RFC 1951, section 3.2.7).
func (f *inflater) dynamicHeader() error {
	counts, err := f.take(14)
	if err != nil {
		return err
	}
	litlens := counts&31 + 257
	dists := counts>>5&31 + 1
	if litlens > numLitlen || dists > numDist {
		return f.corrupt("number of codes")
	}
	if err := f.codeLenCode(counts>>10 + 4); err != nil {
		return err
	}
	if err := f.codeLens(f.lens[:litlens+dists]); err != nil {
		return err
	}
	if !buildTable(f.ownLitlen[:], litlenBits, f.lens[:litlens], litlenSymbols[:]) {
		return f.corrupt("code of literals and lengths")
	}
	if !buildTable(f.ownDist[:], distBits, f.lens[litlens:litlens+dists], distSymbols[:]) {
		return f.corrupt("code of distances")
	}
	return nil
}

// codeLenCode reads the code in which the code lengths are written.
func (f *inflater) codeLenCode(n int) error {
	var lens [numCodeLens]uint8
	for _, symbol := range codeLenOrder[:n] {
		v, err := f.take(3)
		if err != nil {
			return err
		}
		lens[symbol] = uint8(v)
	}
	if !buildTable(f.header[:], codeLenBits, lens[:], codeLenSymbols[:]) {
		return f.corrupt("code of code lengths")
	}
	return nil
}

// codeLens reads the code lengths of both codes, which are one sequence: a
// repetition may cross from one into the other.
func (f *inflater) codeLens(lens []uint8) error {
	for i := 0; i < len(lens); {
		symbol, err := f.codeLen()
		if err != nil {
			return err
		}
		if symbol < repeatLast {
			lens[i] = uint8(symbol)
			i++
			continue
		}
		value, n, err := f.repetition(symbol, lens[:i])
		if err != nil {
			return err
		}
		if n > len(lens)-i {
			return f.corrupt("too many code lengths")
		}
		for range n {
			lens[i] = value
			i++
		}
	}
	return nil
}

// codeLen reads one symbol of the code lengths.
func (f *inflater) codeLen() (int, error) {
	if f.nbits < codeLenBits {
		f.refill()
	}
	entry := f.header[f.bits&(1<<codeLenBits-1)]
	n := uint(entry & entryBits)
	switch {
	case entry&entryInvalid != 0 && f.nbits > 0:
		return 0, f.corrupt("unused code in the code lengths")
	case n > f.nbits || f.nbits == 0:
		return 0, f.inputError()
	}
	f.drop(n)
	return int(entry >> entryValue), nil
}

// repetition tells what a repeating symbol stands for: a value, so many times.
func (f *inflater) repetition(symbol int, before []uint8) (value uint8, n int, err error) {
	switch symbol {
	case repeatLast:
		if len(before) == 0 {
			return 0, 0, f.corrupt("repetition of no code length")
		}
		n, err = f.take(2)
		return before[len(before)-1], n + 3, err
	case repeatZero:
		n, err = f.take(3)
		return 0, n + 3, err
	default:
		n, err = f.take(7)
		return 0, n + 11, err
	}
}
