// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"
	"weak"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
)

// zstdDecoders are kept for the next reader. A decoder holds the window of the last
// frame that needed a larger one than those before: allocated for each layer it
// would be most of the garbage, and most of the time that a small layer takes. An
// idle process keeps none beyond the next garbage collection.
var zstdDecoders idleDecoders

// idleDecoders is what a sync.Pool does, but one decoder is enough for one reader
// at a time: a sync.Pool hides one from all threads but the one that put it there,
// and windows would pile up.
type idleDecoders struct {
	mu   sync.Mutex
	list []weak.Pointer[zstdDecoder]
}

func (p *idleDecoders) put(d *zstdDecoder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, weak.Make(d))
}

// get returns a decoder with exactly that limit, which can't be changed later, or
// nil. Others found on the way are left to the garbage collector.
func (p *idleDecoders) get(maxWindow uint64) *zstdDecoder {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.list) > 0 {
		last := len(p.list) - 1
		d := p.list[last].Value()
		p.list = p.list[:last]
		if d != nil && d.max == maxWindow {
			return d
		}
	}
	return nil
}

// zstdDecoder is a decoder of klauspost/compress with its buffers.
type zstdDecoder struct {
	counter counter
	in      *bufio.Reader
	decoder *zstd.Decoder
	max     uint64
	out     []byte // for Next alone
}

// newZstdDecoder makes a decoder that works on the goroutine calling Next and
// allocates little more than the frame's window.
func newZstdDecoder(maxWindow uint64) (*zstdDecoder, error) {
	decoder, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow),
		// Reading a small blob whole would take its stated size for granted.
		zstd.WithDecodeBuffersBelow(0))
	if err != nil {
		return nil, fmt.Errorf("zstd window of at most %d bytes: %w: %w", maxWindow, err, errdefs.ErrInvalidArgument)
	}
	// The decoder reads a block's three bytes of header by themselves.
	return &zstdDecoder{in: bufio.NewReaderSize(nil, inputSize), decoder: decoder, max: maxWindow}, nil
}

// begin makes d decode src from its start.
func (d *zstdDecoder) begin(src io.Reader) error {
	d.counter = counter{src: src}
	d.in.Reset(&d.counter)
	return d.decoder.Reset(d.in)
}

// release gives d back. Nothing of the source may outlive the reader in the pool.
func (d *zstdDecoder) release() {
	d.counter = counter{}
	d.in.Reset(nil)
	if d.decoder.Reset(nil) == nil {
		zstdDecoders.put(d)
	}
}

// zstdReader is a Reader of a sequence of zstd frames and skippable frames.
type zstdReader struct {
	d   *zstdDecoder
	err error
	at  int64 // input offset, once d is gone
}

func newZstd(r io.Reader, opts Options) (*zstdReader, error) {
	maxWindow := opts.MaxWindow
	if maxWindow == 0 {
		maxWindow = DefaultMaxWindow
	}
	d := zstdDecoders.get(maxWindow)
	if d == nil {
		var err error
		if d, err = newZstdDecoder(maxWindow); err != nil {
			return nil, err
		}
	}
	if err := d.begin(r); err != nil {
		return nil, fmt.Errorf("begin to decode zstd: %w: %w", err, errdefs.ErrInternal)
	}
	return &zstdReader{d: d}, nil
}

// Next implements Reader.
func (z *zstdReader) Next() ([]byte, error) {
	if z.err != nil {
		return nil, z.err
	}
	if z.d.out == nil {
		z.d.out = make([]byte, ChunkSize)
	}
	n, err := z.Fill(z.d.out)
	if n > 0 {
		return z.d.out[:n], nil
	}
	return nil, err
}

// Fill reads into p until it is full, or the stream ends, with io.EOF, or fails. What
// came before is in p all the same.
func (z *zstdReader) Fill(p []byte) (int, error) {
	if z.err != nil {
		return 0, z.err
	}
	n, err := readFull(z.d.decoder, p)
	if err != nil {
		z.err = z.classify(err)
	}
	return n, z.err
}

// classify gives the decoder's error its class. A failure of the source may look
// like the end of a frame to the decoder, and nothing at all like a whole blob.
func (z *zstdReader) classify(err error) error {
	switch source := &z.d.counter; {
	case source.err != nil:
		return source.err
	case errors.Is(err, io.EOF) && source.n > 0:
		return io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return truncated(Zstd, z.InputOffset())
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("zstd blob needs a window over the limit of %d bytes, raise it or compress the layer with a smaller window: %w",
			z.d.max, errdefs.ErrResourceExhausted)
	}
	return corrupt(Zstd, z.InputOffset(), err.Error())
}

// InputOffset implements Reader.
func (z *zstdReader) InputOffset() int64 {
	if z.d == nil {
		return z.at
	}
	return z.d.counter.n - int64(z.d.in.Buffered())
}

// Close implements Reader.
func (z *zstdReader) Close() error {
	if z.d != nil {
		z.at = z.InputOffset()
		z.d.release()
		z.d, z.err = nil, errClosed
	}
	return nil
}
