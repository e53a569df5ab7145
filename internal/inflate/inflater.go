// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"encoding/binary"
	"errors"
	"io"
)

// step is what an inflater does next.
type step int

const (
	stepHeader step = iota // a block's header
	stepStored             // the rest of a stored block
	stepCodes              // the codes of a compressed block
	stepDone               // after the last block
)

// errChunkFull ends a step whose chunk has no room left.
var errChunkFull = errors.New("chunk is full")

// inflater decodes one DEFLATE stream (RFC 1951) after the other from its input.
//
// The low nbits of bits are the input's next bits. Above them there may already
// be bits of in.buf[in.pos:], which refill puts there once more.
type inflater struct {
	bits  uint64
	nbits uint // below 64

	step   step
	final  bool // the block is the last one
	stored int  // bytes left of a stored block

	litlen *litlenTable
	dist   *distTable

	in  input
	out window

	ownLitlen litlenTable
	ownDist   distTable
	lens      [numLitlen + numDist]uint8
	header    headerTable
}

func (f *inflater) reset(src io.Reader) {
	f.in.reset(src)
	f.restart()
}

// restart begins a new stream where the input stands.
func (f *inflater) restart() {
	f.bits, f.nbits = 0, 0
	f.step, f.final = stepHeader, false
	f.out.reset()
}

// next returns the following bytes, at most ChunkSize, and with io.EOF the last ones. They
// lie in into, which is not changed before the next call.
func (f *inflater) next(into *[windowSize]byte) ([]byte, error) {
	f.out.slide(into)
	var err error
	for err == nil && f.step != stepDone {
		switch f.step {
		case stepHeader:
			err = f.blockHeader()
		case stepStored:
			err = f.storedBlock()
		default:
			err = f.codes()
		}
	}
	f.unread()
	switch {
	case err == nil:
		err = io.EOF
	case errors.Is(err, errChunkFull):
		err = nil
	}
	return f.out.take(), err
}

// endBlock is called after the last code or byte of a block.
func (f *inflater) endBlock() {
	f.step = stepHeader
	if f.final {
		f.step = stepDone
	}
}

// unread gives whole bytes of the bit buffer back to the input.
func (f *inflater) unread() {
	f.in.pos -= int(f.nbits >> 3)
	f.nbits &= 7
	f.bits &= 1<<f.nbits - 1
}

// refill puts 56 bits or more into the bit buffer, less only where the input ends.
func (f *inflater) refill() {
	in := &f.in
	if in.end-in.pos < 8 && in.err == nil {
		f.unread()
		in.fill(inputPad)
	}
	if in.end-in.pos >= 8 {
		f.bits |= binary.LittleEndian.Uint64(in.buf[in.pos:]) << f.nbits
		in.pos += int(63-f.nbits) >> 3
		f.nbits |= 56
		return
	}
	for f.nbits < 56 && in.pos < in.end {
		f.bits |= uint64(in.buf[in.pos]) << f.nbits
		in.pos++
		f.nbits += 8
	}
}

// take returns the next n bits, at most 16, or an error at the input's end.
func (f *inflater) take(n uint) (int, error) {
	if f.nbits < n {
		f.refill()
		if f.nbits < n {
			return 0, f.inputError()
		}
	}
	v := int(f.bits & (1<<n - 1))
	f.drop(n)
	return v, nil
}

func (f *inflater) drop(n uint) {
	f.bits >>= n & 63
	f.nbits -= n
}

// offset is the compressed bytes decoded, a started one included.
func (f *inflater) offset() int64 {
	return f.in.offset() - int64(f.nbits>>3)
}

func (f *inflater) corrupt(what string) error {
	return corrupt(Gzip, f.offset(), what)
}

// inputError is why there are no more bits.
func (f *inflater) inputError() error {
	if f.in.err != nil && !errors.Is(f.in.err, io.EOF) {
		return f.in.err
	}
	return truncated(Gzip, f.offset())
}
