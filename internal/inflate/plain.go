// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"errors"
	"io"
	"sync"
)

// chunks are kept for the next reader that has to copy.
var chunks = sync.Pool{New: func() any { return new([ChunkSize]byte) }}

func newChunk() *[ChunkSize]byte {
	c, ok := chunks.Get().(*[ChunkSize]byte)
	if !ok {
		c = new([ChunkSize]byte)
	}
	return c
}

// plainReader is a Reader of what is not compressed.
type plainReader struct {
	src io.Reader
	buf *[ChunkSize]byte
	n   int64
	err error
}

func newPlain(r io.Reader) *plainReader {
	return &plainReader{src: r, buf: newChunk()}
}

// Next implements Reader.
func (p *plainReader) Next() ([]byte, error) {
	if p.err != nil {
		return nil, p.err
	}
	n, err := readFull(p.src, p.buf[:])
	p.n += int64(n)
	p.err = err
	if n > 0 {
		return p.buf[:n], nil
	}
	return nil, p.err
}

// InputOffset implements Reader.
func (p *plainReader) InputOffset() int64 { return p.n }

// Close implements Reader.
func (p *plainReader) Close() error {
	if p.buf != nil {
		chunks.Put(p.buf)
		p.buf, p.src, p.err = nil, nil, errClosed
	}
	return nil
}

// readFull fills buf as far as r goes and returns r's error as it is, also where
// it came with the last bytes.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for empty := 0; n < len(buf) && err == nil; {
		var m int
		m, err = r.Read(buf[n:])
		n += m
		if m > 0 {
			empty = 0
		} else if empty++; empty > maxEmptyReads && err == nil {
			err = io.ErrNoProgress
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return n, err
}
