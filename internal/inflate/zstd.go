// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
)

// zstdReader is a Reader of a sequence of zstd frames and skippable frames.
type zstdReader struct {
	counter counter
	in      *bufio.Reader
	decoder *zstd.Decoder
	buf     *[ChunkSize]byte
	max     uint64
	err     error
}

// newZstd makes a decoder that works on the goroutine calling Next and allocates
// little more than the frame's window. It is not kept for another reader: a window
// can be large, and would be held for nothing.
func newZstd(r io.Reader, opts Options) (*zstdReader, error) {
	z := &zstdReader{counter: counter{src: r}, max: opts.MaxWindow}
	// The decoder reads a block's three bytes of header by themselves.
	z.in = bufio.NewReaderSize(&z.counter, inputSize)
	if z.max == 0 {
		z.max = DefaultMaxWindow
	}
	decoder, err := zstd.NewReader(z.in,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(z.max),
		// Reading a small blob whole would take its stated size for granted.
		zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		return nil, fmt.Errorf("zstd window of at most %d bytes: %w: %w", z.max, err, errdefs.ErrInvalidArgument)
	}
	z.decoder, z.buf = decoder, newChunk()
	return z, nil
}

// Next implements Reader.
func (z *zstdReader) Next() ([]byte, error) {
	if z.err != nil {
		return nil, z.err
	}
	n, err := readFull(z.decoder, z.buf[:])
	if err != nil {
		z.err = z.classify(err)
	}
	if n > 0 {
		return z.buf[:n], nil
	}
	return nil, z.err
}

// classify gives the decoder's error its class. A failure of the source may look
// like the end of a frame to the decoder, and nothing at all like a whole blob.
func (z *zstdReader) classify(err error) error {
	switch {
	case z.counter.err != nil:
		return z.counter.err
	case errors.Is(err, io.EOF) && z.counter.n > 0:
		return io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return truncated(Zstd, z.InputOffset())
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("zstd blob needs a window over the limit of %d bytes, raise it or compress the layer with a smaller window: %w",
			z.max, errdefs.ErrResourceExhausted)
	}
	return corrupt(Zstd, z.InputOffset(), err.Error())
}

// InputOffset implements Reader.
func (z *zstdReader) InputOffset() int64 { return z.counter.n - int64(z.in.Buffered()) }

// Close implements Reader.
func (z *zstdReader) Close() error {
	if z.buf != nil {
		z.decoder.Close()
		chunks.Put(z.buf)
		z.buf, z.err = nil, errClosed
	}
	return nil
}
