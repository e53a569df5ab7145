// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// ChunkSize is the most that one Next returns, in bytes.
const ChunkSize = 256 << 10

// DefaultMaxWindow is the zstd window accepted when Options.MaxWindow is 0, in
// bytes: what the zstd command decompresses unless told otherwise.
const DefaultMaxWindow = 128 << 20

// Reader is a stream of decompressed bytes that hands out its own buffer. It is
// used by one goroutine at a time.
type Reader interface {
	// Next returns the following bytes of the stream, at least one and at most
	// ChunkSize. They are valid until the next call of Next or Close.
	//
	// io.EOF is returned once everything was decompressed and every checksum
	// agreed. A corrupt blob is ErrInvalidArgument, a blob that ends early is
	// io.ErrUnexpectedEOF as well, and a zstd window over the limit is
	// ErrResourceExhausted. An error of the source is passed on as it is. Every
	// error is final: later calls return it again.
	Next() ([]byte, error)
	// InputOffset is how many bytes of the blob were decoded so far. It is behind
	// what was read from the source by what waits in a buffer.
	InputOffset() int64
	// Close gives the buffers back. It does not close the source.
	Close() error
}

// Format is how a blob is compressed.
type Format int

// The formats that the OCI image specification names for layers.
const (
	Uncompressed Format = iota
	Gzip
	Zstd
)

// String is the format's name for messages.
func (f Format) String() string {
	switch f {
	case Uncompressed:
		return "uncompressed"
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("format %d", int(f))
}

// Engine is an implementation of DEFLATE.
type Engine int

// The engines. Which one is used changes nothing but the speed: framing and
// checksums of gzip are the package's own with both.
const (
	Own Engine = iota
	Klauspost
)

// Options tune a Reader. The zero value is right for a layer.
type Options struct {
	// Engine decodes gzip's DEFLATE data.
	Engine Engine
	// MaxWindow is the largest zstd window accepted, in bytes, and so what
	// bounds the memory of a zstd reader; 0 is DefaultMaxWindow.
	MaxWindow uint64
}

// Open returns a Reader of r, which holds one blob in format f. Nothing is read
// before the first Next. The caller closes the Reader, and r afterwards.
// A format or an engine that does not exist is ErrNotImplemented.
func Open(r io.Reader, f Format, opts Options) (Reader, error) {
	switch f {
	case Uncompressed:
		return newPlain(r), nil
	case Zstd:
		return newZstd(r, opts)
	case Gzip:
		switch opts.Engine {
		case Own:
			return placingReader{newGzip(newOwnBody(r))}, nil
		case Klauspost:
			return newGzip(newKlauspostBody(r)), nil
		}
		return nil, fmt.Errorf("inflate engine %d: %w", int(opts.Engine), errdefs.ErrNotImplemented)
	}
	return nil, fmt.Errorf("decompress a layer in %v: %w", f, errdefs.ErrNotImplemented)
}

// Detect tells the format of a blob from its first bytes; four are enough. A
// prefix it does not know is Uncompressed. A blob of zstd may begin with a
// skippable frame (RFC 8878, section 3.1.2), which counts as zstd.
func Detect(prefix []byte) Format {
	if len(prefix) >= 3 && prefix[0] == gzipID1 && prefix[1] == gzipID2 && prefix[2] == gzipDeflate {
		return Gzip
	}
	if len(prefix) < 4 {
		return Uncompressed
	}
	frame := prefix[0] == 0x28 && prefix[1] == 0xb5 && prefix[2] == 0x2f && prefix[3] == 0xfd
	skippable := prefix[0]&0xf0 == 0x50 && prefix[1] == 0x2a && prefix[2] == 0x4d && prefix[3] == 0x18
	if frame || skippable {
		return Zstd
	}
	return Uncompressed
}
