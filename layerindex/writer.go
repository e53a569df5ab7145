// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/containerd/errdefs"
)

// Writer writes an index. Its methods may be called concurrently: records have no order.
// The first error of what it writes to is what all further calls return.
type Writer struct {
	mu      sync.Mutex
	w       io.Writer
	block   []byte // with room for its header in front
	before  string // the path of the last record in it
	amended []byte // records, as block
	last    string
	sums    xxhash.Digest // of the checksums of all blocks
	offset  int64
	records uint64
	err     error
}

// NewWriter returns a Writer to w, which gets a block of 64 KiB at a time and nothing
// before the first is full.
func NewWriter(w io.Writer) *Writer {
	iw := &Writer{w: w}
	iw.sums.Reset()
	return iw
}

// Add adds a record. A path is added once. r is not kept.
func (w *Writer) Add(r *Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.block = appendRecord(room(w.block), w.before, r)
	w.before = r.Path
	w.records++
	if len(w.block) >= blockSize {
		w.block, w.before = w.flush(w.block), ""
	}
	return w.err
}

// Amend says that what the record of r.Path says has changed, but for the content.
// ErrResourceExhausted: there are too many, and the index can't be written like that.
func (w *Writer) Amend(r *Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.amended) > maxAmended {
		return fmt.Errorf("index: too many records to amend: %w", errdefs.ErrResourceExhausted)
	}
	w.amended = appendRecord(room(w.amended), w.last, r)
	w.last = r.Path
	return w.err
}

// Finish writes what is left, and the trailer. There are no calls after it.
func (w *Writer) Finish() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush(w.block)
	if w.offset == 0 {
		w.write([]byte(magic))
	}
	amended := w.offset
	w.flush(w.amended)
	t := make([]byte, 0, trailerSize)
	t = append(t, trailerMagic...)
	t = binary.LittleEndian.AppendUint64(t, w.records)
	t = binary.LittleEndian.AppendUint64(t, uint64(amended))
	_, _ = w.sums.Write(t) // never fails, see hash.Hash
	w.write(binary.LittleEndian.AppendUint64(t, w.sums.Sum64()))
	w.block, w.amended = nil, nil
	return w.err
}

// room leaves room for the header in front of the first record.
func room(block []byte) []byte {
	if len(block) == 0 {
		block = append(block, make([]byte, blockHeader)...)
	}
	return block
}

// flush writes a block, and returns the memory for the next one.
func (w *Writer) flush(block []byte) []byte {
	if len(block) <= blockHeader {
		return block
	}
	if w.offset == 0 {
		w.write([]byte(magic))
	}
	payload := block[blockHeader:]
	sum := xxhash.Sum64(payload)
	binary.LittleEndian.PutUint32(block, uint32(len(payload)))
	binary.LittleEndian.PutUint64(block[4:], sum)
	_, _ = w.sums.Write(block[4:blockHeader]) // never fails, see hash.Hash
	w.write(block)
	if cap(block) > 2*blockSize {
		return nil // it had a very long record
	}
	return block[:0]
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.offset += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write the index: %w", err)
	}
}
