// SPDX-License-Identifier: Apache-2.0

package inflate

// What is wrong with a symbol.
const (
	badSymbol = "unused code of a literal or length"
	badDist   = "unused code of a distance"
	tooFar    = "distance before the start of the data"
)

// codes decodes a compressed block until it ends, the chunk is full or the input
// is at its end. The fast loop does nearly all of it; what it leaves is the input's
// last bytes, the end of a block and errors, one symbol at a time.
func (f *inflater) codes() error {
	for f.step == stepCodes {
		if f.out.pos > f.out.limit()-maxMatch {
			return errChunkFull
		}
		if f.in.end-f.in.pos < inputPad {
			f.unread()
			f.in.fill(inputPad)
		}
		switch f.fast() {
		case stopEnd:
			f.endBlock()
			return nil
		case stopSymbol:
			return f.corrupt(badSymbol)
		case stopDist:
			return f.corrupt(badDist)
		case stopFar:
			return f.corrupt(tooFar)
		case stopBorder:
		}
		if f.out.pos > f.out.limit()-maxMatch {
			continue
		}
		if err := f.symbol(); err != nil {
			return err
		}
	}
	return nil
}

// symbol decodes one entry of the litlen table, with a match's distance.
func (f *inflater) symbol() error {
	f.refill()
	entry := f.litlen[f.bits&(1<<litlenBits-1)]
	if entry&entryLink != 0 && f.nbits > litlenBits {
		start, n := entry>>entryValue, entry>>entryCodeShift&entryCode
		f.drop(litlenBits)
		entry = f.litlen[start+uint32(f.bits)&(1<<n-1)]
	}
	n := uint(entry & entryBits)
	switch {
	case n > f.nbits || f.nbits == 0 || entry&entryLink != 0:
		return f.inputError()
	case entry&entryLiteral != 0:
		f.drop(n)
		f.out.buf[f.out.pos] = byte(entry >> entryValue)
		f.out.pos++
		return nil
	case entry&entryEnd != 0:
		f.drop(n)
		f.endBlock()
		return nil
	case entry&entryInvalid != 0:
		return f.corrupt(badSymbol)
	}
	extra := f.bits >> (entry >> entryCodeShift & entryCode) & uint64(entry>>entryMask)
	f.drop(n)
	return f.match(int(entry>>entryValue&entryLength) + int(extra))
}

// match decodes a distance and copies length bytes from there.
func (f *inflater) match(length int) error {
	f.refill()
	entry := f.dist[f.bits&(1<<distBits-1)]
	if entry&entryLink != 0 && f.nbits > distBits {
		start, n := entry>>entryValue, entry>>entryCodeShift&entryCode
		f.drop(distBits)
		entry = f.dist[start+f.bits&(1<<n-1)]
	}
	n := uint(entry & entryBits)
	switch {
	case n > f.nbits || f.nbits == 0 || entry&entryLink != 0:
		return f.inputError()
	case entry&entryInvalid != 0:
		return f.corrupt(badDist)
	}
	extra := f.bits >> (entry >> entryCodeShift & entryCode) & uint64(uint16(entry>>entryValue))
	f.drop(n)
	dist := int(entry>>entryDist) + int(extra)
	if dist > f.out.pos {
		return f.corrupt(tooFar)
	}
	f.out.repeat(dist, length)
	return nil
}
