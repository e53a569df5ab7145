// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bufio"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
)

// klausposts are kept for the next reader.
var klausposts = sync.Pool{New: func() any { return newKlauspost() }}

// klauspost is a decoder of klauspost/compress with its buffers.
type klauspost struct {
	counter counter
	in      *bufio.Reader
	decoder io.ReadCloser
	out     [ChunkSize]byte
}

func newKlauspost() *klauspost {
	k := &klauspost{in: bufio.NewReaderSize(nil, inputSize)}
	k.decoder = flate.NewReader(k.in)
	return k
}

// klauspostBody is klauspost's inflater as a body. It takes no byte from the
// buffered input that is not part of the stream, so the trailer follows there.
type klauspostBody struct {
	k *klauspost
}

func newKlauspostBody(src io.Reader) body {
	k, ok := klausposts.Get().(*klauspost)
	if !ok {
		k = newKlauspost()
	}
	k.counter = counter{src: src}
	k.in.Reset(&k.counter)
	return &klauspostBody{k: k}
}

func (b *klauspostBody) next() ([]byte, error) {
	n := 0
	for n < ChunkSize {
		m, err := b.k.decoder.Read(b.k.out[n:])
		n += m
		if err != nil {
			return b.k.out[:n], b.classify(err)
		}
	}
	return b.k.out[:n], nil
}

func (b *klauspostBody) classify(err error) error {
	var bad flate.CorruptInputError
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case b.k.counter.err != nil:
		return b.k.counter.err
	case errors.As(err, &bad):
		return corrupt(Gzip, b.offset(), "DEFLATE data")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return truncated(Gzip, b.offset())
	}
	return err
}

func (b *klauspostBody) restart() {
	if r, ok := b.k.decoder.(flate.Resetter); ok && r.Reset(b.k.in, nil) == nil {
		return
	}
	b.k.decoder = flate.NewReader(b.k.in)
}

func (b *klauspostBody) offset() int64 {
	return b.k.counter.n - int64(b.k.in.Buffered())
}

// ReadByte implements io.ByteReader.
func (b *klauspostBody) ReadByte() (byte, error) { return b.k.in.ReadByte() }

func (b *klauspostBody) close() {
	b.k.counter = counter{}
	b.k.in.Reset(nil)
	klausposts.Put(b.k)
}
