// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/internal/inflate"
)

// apiPiece is how much is read through containerd's API at once, in bytes: each
// read is a stream of its own there.
const apiPiece = 1 << 20

// maxWindow is how far back a zstd frame may refer, in bytes: so much memory can one
// ask for. It is what "zstd -19 --long=24" makes; plain levels up to 19 need half.
const maxWindow = 16 << 20

// layer is the tar of a blob, and counts how much of the blob went into it.
type layer struct {
	inflate.Reader
	blob    blob
	input   *input
	desc    ocispec.Descriptor
	allowed func() error // see openBlob
}

// openLayer opens the blob of desc and decompresses it. progress may be nil.
func (d *Differ) openLayer(ctx context.Context, desc ocispec.Descriptor, p packing, progress func(int64)) (_ *layer, err error) {
	blob, allowed, err := d.openBlob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			// Somebody without a right to the blob is told that, and nothing else.
			err = errors.Join(cmp.Or(allowed(), err), blob.Close())
		}
	}()
	format, err := p.format(blob)
	if err != nil {
		return nil, err
	}
	in := newInput(ctx, blob, desc.Size, progress)
	reader, err := inflate.Open(in, format, inflate.Options{MaxWindow: maxWindow})
	if err != nil {
		return nil, err
	}
	return &layer{Reader: reader, blob: blob, input: in, desc: desc, allowed: allowed}, nil
}

// Close gives back what openLayer took.
func (l *layer) Close() error { return errors.Join(l.Reader.Close(), l.blob.Close()) }

// checkConsumed is for after the tar's end: a blob with a rest is not the layer
// that its digest names.
func (l *layer) checkConsumed() error {
	if n := l.input.Count(); n != l.desc.Size {
		return fmt.Errorf("layer %s ended after %d of %d bytes of its blob: %w", l.desc.Digest, n, l.desc.Size, errdefs.ErrInvalidArgument)
	}
	return nil
}

// input reads a blob from its begin, counts, and ends with the context.
type input struct {
	ctx      context.Context // of the one call that the blob is read for
	r        io.Reader
	progress func(int64)
	read     atomic.Int64
}

func newInput(ctx context.Context, b blob, size int64, progress func(int64)) *input {
	if progress == nil {
		progress = func(int64) {}
	}
	in := &input{ctx: ctx, r: io.NewSectionReader(b, 0, size), progress: progress}
	if _, local := b.(*os.File); !local {
		in.r = bufio.NewReaderSize(in.r, apiPiece)
	}
	return in
}

// Read reports what was read before it reads more, so that 0 comes first.
func (in *input) Read(p []byte) (int, error) {
	if err := in.ctx.Err(); err != nil {
		return 0, err
	}
	in.progress(in.Count())
	n, err := in.r.Read(p)
	in.read.Add(int64(n))
	return n, err
}

// Count returns the bytes read so far. Any goroutine may ask.
func (in *input) Count() int64 { return in.read.Load() }
