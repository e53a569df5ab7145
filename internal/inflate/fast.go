// SPDX-License-Identifier: Apache-2.0

package inflate

import "encoding/binary"

// stop is why the fast loop ended.
type stop int

const (
	stopBorder stop = iota // input or room is running out
	stopEnd                // the block has ended
	stopSymbol             // a code of the litlen alphabet that means nothing
	stopDist               // a code of the distances that means nothing
	stopFar                // a distance before the start of the data
)

// steps is, by distance, how far a word filled with a repetition carries.
var steps = [8]uint8{8, 8, 8, 6, 8, 5, 6, 7}

// fast decodes a compressed block while there are inputPad bytes of input and room
// for two literals and the longest match.
//
// It is one long function, and repeats itself, because everything it works on has
// to stay in registers: a call, or a field written in the loop, costs more than
// what is decoded in between. Only the low six bits of nbits count, so that whole
// entries are subtracted from it. The conditions on the limits, which always hold,
// let the compiler drop bounds checks; matches may be written past their end, into
// what is decoded next or the slack behind the window.
//
//nolint:funlen // see above
func (f *inflater) fast() stop {
	in, out := &f.in.buf, f.out.buf
	litlen, dist := f.litlen, f.dist
	pos, inLimit := uint(f.in.pos), uint(max(f.in.end-inputPad+1, 0))
	w, outLimit := uint(f.out.pos), uint(f.out.limit()-maxMatch-2)
	if inLimit > inputSize || outLimit > windowSize-outputSlack {
		return stopBorder
	}
	bits, nbits := f.bits, uint64(f.nbits)
	why := stopBorder

	if pos >= inLimit {
		return stopBorder
	}
	bits |= binary.LittleEndian.Uint64(in[pos:pos+8]) << (nbits & 63)
	pos += uint(63-nbits&63) >> 3
	nbits |= 56
	entry := litlen[bits&(1<<litlenBits-1)]
	for pos < inLimit && w < outLimit {
		if entry&entryLiteral != 0 {
			out[w] = byte(entry >> entryValue)
			w++
			bits >>= entry & entryBits
			nbits -= uint64(entry)
			entry = litlen[bits&(1<<litlenBits-1)]
			if entry&entryLiteral != 0 {
				out[w] = byte(entry >> entryValue)
				w++
				bits >>= entry & entryBits
				nbits -= uint64(entry)
				entry = litlen[bits&(1<<litlenBits-1)]
				if entry&entryLiteral != 0 {
					out[w] = byte(entry >> entryValue)
					w++
					bits >>= entry & entryBits
					nbits -= uint64(entry)
					bits |= binary.LittleEndian.Uint64(in[pos:pos+8]) << (nbits & 63)
					pos += uint(63-nbits&63) >> 3
					nbits |= 56
					entry = litlen[bits&(1<<litlenBits-1)]
					continue
				}
			}
			bits |= binary.LittleEndian.Uint64(in[pos:pos+8]) << (nbits & 63)
			pos += uint(63-nbits&63) >> 3
			nbits |= 56
		}

		if entry&entryException != 0 {
			if entry&entryLink != 0 {
				bits >>= litlenBits
				nbits -= litlenBits
				n := entry >> entryCodeShift & entryCode
				entry = litlen[(entry>>entryValue+uint32(bits)&(1<<n-1))&(litlenSize-1)]
				if entry&entryLiteral != 0 {
					out[w] = byte(entry >> entryValue)
					w++
					bits >>= entry & entryBits
					nbits -= uint64(entry)
					bits |= binary.LittleEndian.Uint64(in[pos:pos+8]) << (nbits & 63)
					pos += uint(63-nbits&63) >> 3
					nbits |= 56
					entry = litlen[bits&(1<<litlenBits-1)]
					continue
				}
			}
			if entry&entryException != 0 {
				bits >>= entry & entryBits
				nbits -= uint64(entry)
				why = stopEnd
				if entry&entryInvalid != 0 {
					why = stopSymbol
				}
				break
			}
		}
		length := uint(entry>>entryValue&entryLength) +
			uint(bits>>(entry>>entryCodeShift&entryCode))&uint(entry>>entryMask)
		bits >>= entry & entryBits
		nbits -= uint64(entry)

		far := dist[bits&(1<<distBits-1)]
		if far&(entryLink|entryInvalid) != 0 {
			if far&entryLink != 0 {
				bits >>= distBits
				nbits -= distBits
				n := far >> entryCodeShift & entryCode
				far = dist[(far>>entryValue+bits&(1<<n-1))&(distSize-1)]
			}
			if far&entryInvalid != 0 {
				why = stopDist
				break
			}
		}
		distance := uint(far>>entryDist) + uint(bits>>(far>>entryCodeShift&entryCode))&uint(uint16(far>>entryValue))
		bits >>= far & entryBits
		nbits -= far
		if distance > w {
			why = stopFar
			break
		}

		bits |= binary.LittleEndian.Uint64(in[pos:pos+8]) << (nbits & 63)
		pos += uint(63-nbits&63) >> 3
		nbits |= 56
		entry = litlen[bits&(1<<litlenBits-1)]
		from, to := w-distance, w
		w += length
		if distance >= 8 {
			src, dst := (*[32]byte)(out[from:from+32]), (*[32]byte)(out[to:to+32])
			binary.LittleEndian.PutUint64(dst[0:8], binary.LittleEndian.Uint64(src[0:8]))
			binary.LittleEndian.PutUint64(dst[8:16], binary.LittleEndian.Uint64(src[8:16]))
			if length > 16 {
				binary.LittleEndian.PutUint64(dst[16:24], binary.LittleEndian.Uint64(src[16:24]))
				binary.LittleEndian.PutUint64(dst[24:32], binary.LittleEndian.Uint64(src[24:32]))
				for to += 32; to < w; to += 16 {
					src, dst := (*[16]byte)(out[to-distance:to-distance+16]), (*[16]byte)(out[to:to+16])
					binary.LittleEndian.PutUint64(dst[0:8], binary.LittleEndian.Uint64(src[0:8]))
					binary.LittleEndian.PutUint64(dst[8:16], binary.LittleEndian.Uint64(src[8:16]))
				}
			}
			continue
		}
		word := binary.LittleEndian.Uint64(out[from:from+8]) & (1<<(8*distance&63) - 1)
		word |= word << (8 * distance)
		word |= word << (16 * distance)
		word |= word << (32 * distance)
		for step := uint(steps[distance&7]); to < w; to += step {
			binary.LittleEndian.PutUint64(out[to:to+8], word)
		}
	}
	f.in.pos, f.out.pos = int(pos), int(w)
	f.bits, f.nbits = bits, uint(nbits&63)
	return why
}
