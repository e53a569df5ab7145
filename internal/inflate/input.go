// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"io"
)

const (
	// inputSize is what is read from the source at once.
	inputSize = 128 << 10
	// inputPad lets the fast loop load eight bytes wherever input may begin.
	inputPad = 32
	// maxEmptyReads is how often a source may return nothing without an error.
	maxEmptyReads = 100
)

// input is a buffered source of compressed bytes: buf[pos:end] is still to be
// decoded. err is what the source answered last; it counts once buf is empty.
type input struct {
	src      io.Reader
	err      error
	base     int64 // offset in the blob of buf[0]
	pos, end int
	buf      [inputSize + inputPad]byte
}

func (in *input) reset(src io.Reader) {
	in.src, in.err, in.base, in.pos, in.end = src, nil, 0, 0, 0
}

func (in *input) offset() int64 { return in.base + int64(in.pos) }

// fill moves what is left to the front of the buffer and reads until at least
// want bytes are there, or the source is at its end or fails.
func (in *input) fill(want int) {
	if in.err != nil || in.end-in.pos >= want {
		return
	}
	copy(in.buf[:], in.buf[in.pos:in.end])
	in.base += int64(in.pos)
	in.pos, in.end = 0, in.end-in.pos
	for empty := 0; in.end < want && in.err == nil; {
		n, err := in.src.Read(in.buf[in.end:inputSize])
		in.end += n
		in.err = err
		if n > 0 {
			empty = 0
		} else if empty++; empty > maxEmptyReads && err == nil {
			in.err = io.ErrNoProgress
		}
	}
}

// ReadByte implements io.ByteReader, for what surrounds DEFLATE data.
func (in *input) ReadByte() (byte, error) {
	if in.pos >= in.end {
		in.fill(1)
		if in.pos >= in.end {
			return 0, in.err
		}
	}
	b := in.buf[in.pos]
	in.pos++
	return b, nil
}
