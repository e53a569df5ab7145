// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"errors"
	"hash/crc32"
	"io"
)

// The header of a gzip member (RFC 1952, section 2.3).
const (
	gzipID1     = 0x1f
	gzipID2     = 0x8b
	gzipDeflate = 8

	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
	flagReserved  = 7 << 5

	// maxField bounds the name and the comment, in bytes; the extra field cannot be
	// longer by itself.
	maxField = 64 << 10
)

// body decodes DEFLATE streams and gives access to what stands between them.
type body interface {
	io.ByteReader
	// next returns the following bytes, with io.EOF the last ones of the stream.
	next() ([]byte, error)
	// restart begins the next stream, at the next byte.
	restart()
	// offset is the compressed bytes decoded.
	offset() int64
	close()
}

// gzipReader is a Reader of a sequence of gzip members.
type gzipReader struct {
	body     body
	err      error
	members  int
	inMember bool
	crc      uint32 // of the member's data, or of its header
	size     uint32 // of the member's data, modulo 1<<32
	one      [1]byte
}

func newGzip(b body) *gzipReader { return &gzipReader{body: b} }

// placingReader is a gzipReader of the package's own inflater, which can decode into memory
// of the caller.
type placingReader struct{ *gzipReader }

// Place is Next, but the bytes lie in buf, somewhere, and stay valid. buf is Room bytes long,
// and what it holds must not be changed before the next call has returned: that may still
// refer to it.
func (z placingReader) Place(buf []byte) ([]byte, error) {
	own, ok := z.body.(ownBody)
	if !ok {
		return z.Next() // it is closed
	}
	into := (*[windowSize]byte)(buf)
	return z.chunk(func() ([]byte, error) { return own.f.next(into) })
}

// Room is how long the memory is that Place takes, in bytes.
func (z placingReader) Room() int { return windowSize }

// Next implements Reader.
func (z *gzipReader) Next() ([]byte, error) { return z.chunk(z.body.next) }

// chunk returns what next decodes of the member that is its turn.
func (z *gzipReader) chunk(next func() ([]byte, error)) ([]byte, error) {
	for z.err == nil {
		if !z.inMember {
			z.err = z.begin()
			continue
		}
		chunk, err := next()
		z.crc = crc32.Update(z.crc, crc32.IEEETable, chunk)
		z.size += uint32(len(chunk))
		z.err = err
		if errors.Is(err, io.EOF) {
			z.err = z.finish()
		}
		if len(chunk) > 0 {
			return chunk, nil
		}
	}
	return nil, z.err
}

// InputOffset implements Reader.
func (z *gzipReader) InputOffset() int64 { return z.body.offset() }

// Close implements Reader.
func (z *gzipReader) Close() error {
	if z.err == nil || !errors.Is(z.err, errClosed) {
		z.err = errClosed
		last := closedBody{at: z.body.offset()}
		z.body.close()
		z.body = last
	}
	return nil
}

// begin reads the header of the next member. io.EOF says that there is none, which
// holds after a member only: nothing at all is not a gzip blob.
func (z *gzipReader) begin() error {
	first, err := z.body.ReadByte()
	if errors.Is(err, io.EOF) && z.members > 0 {
		return io.EOF
	}
	if err != nil {
		return z.inputError(err)
	}
	if err := z.header(first); err != nil {
		return err
	}
	z.members++
	z.inMember, z.crc, z.size = true, 0, 0
	z.body.restart()
	return nil
}

// header checks a member's header after its first byte.
func (z *gzipReader) header(first byte) error {
	z.crc = 0
	z.sum(first)
	if first != gzipID1 {
		return z.notGzip()
	}
	var h [9]byte // the rest: ID2, method, flags, four bytes of time, extra flags, system
	if err := z.read(h[:]); err != nil {
		return err
	}
	if h[0] != gzipID2 {
		return z.notGzip()
	}
	if h[1] != gzipDeflate {
		return z.corrupt("unknown compression method")
	}
	flags := h[2]
	if flags&flagReserved != 0 {
		return z.corrupt("reserved flags in the header")
	}
	if err := z.skipFields(flags); err != nil {
		return err
	}
	return z.headerCRC(flags)
}

func (z *gzipReader) notGzip() error {
	if z.members > 0 {
		return z.corrupt("garbage after the last gzip member")
	}
	return z.corrupt("not gzip")
}

// skipFields reads over the optional fields.
func (z *gzipReader) skipFields(flags byte) error {
	if flags&flagExtra != 0 {
		if err := z.skipExtra(); err != nil {
			return err
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		if err := z.skipString(); err != nil {
			return err
		}
	}
	return nil
}

func (z *gzipReader) skipExtra() error {
	var n [2]byte
	if err := z.read(n[:]); err != nil {
		return err
	}
	for range int(n[0]) | int(n[1])<<8 {
		if _, err := z.readByte(); err != nil {
			return err
		}
	}
	return nil
}

// skipString reads over a name or comment, which ends with a zero byte.
func (z *gzipReader) skipString() error {
	for range maxField {
		b, err := z.readByte()
		if err != nil || b == 0 {
			return err
		}
	}
	return z.corrupt("name or comment is over 64 KiB")
}

// headerCRC checks the header against its own checksum, where it has one.
func (z *gzipReader) headerCRC(flags byte) error {
	if flags&flagHeaderCRC == 0 {
		return nil
	}
	want := uint16(z.crc)
	var sum [2]byte
	if err := z.read(sum[:]); err != nil {
		return err
	}
	if uint16(sum[0])|uint16(sum[1])<<8 != want {
		return z.corrupt("checksum of the header")
	}
	return nil
}

// finish reads a member's trailer and compares it with the data.
func (z *gzipReader) finish() error {
	crc, size := z.crc, z.size
	wantCRC, err := z.uint32()
	if err != nil {
		return err
	}
	wantSize, err := z.uint32()
	if err != nil {
		return err
	}
	if crc != wantCRC {
		return z.corrupt("checksum of the data")
	}
	if size != wantSize {
		return z.corrupt("size of the data")
	}
	z.inMember = false
	return nil
}

func (z *gzipReader) uint32() (uint32, error) {
	var b [4]byte
	err := z.read(b[:])
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24, err
}

// read fills p with bytes of a header or trailer.
func (z *gzipReader) read(p []byte) error {
	for i := range p {
		b, err := z.readByte()
		if err != nil {
			return err
		}
		p[i] = b
	}
	return nil
}

// readByte reads a byte that has to be there and adds it to the header's checksum.
func (z *gzipReader) readByte() (byte, error) {
	b, err := z.body.ReadByte()
	if err != nil {
		return 0, z.inputError(err)
	}
	z.sum(b)
	return b, nil
}

// sum adds a byte to the header's checksum; a slice made here would be allocated
// for each of what may be many bytes.
func (z *gzipReader) sum(b byte) {
	z.one[0] = b
	z.crc = crc32.Update(z.crc, crc32.IEEETable, z.one[:])
}

func (z *gzipReader) inputError(err error) error {
	if errors.Is(err, io.EOF) {
		return truncated(Gzip, z.body.offset())
	}
	return err
}

func (z *gzipReader) corrupt(what string) error {
	return corrupt(Gzip, z.body.offset(), what)
}
