// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/cespare/xxhash/v2"
)

// Reader reads an index. Nothing of a block is believed before its checksum was right.
type Reader struct {
	in      *bufio.Reader
	left    int64 // bytes of blocks not read yet
	block   []byte
	d       decoder
	amended map[string]Record
	// Checksums: of the blocks read so far, of the amendments, and of all.
	sums       xxhash.Digest
	amendSums  []byte
	trailer    []byte
	records, n uint64
	done       bool
}

// NewReader reads the trailer and the amendments of an index of size bytes.
//
// ErrDataLoss: it is damaged, or was never finished. ErrFailedPrecondition: a newer
// Strata wrote it. Errors of r come back as they are.
func NewReader(r io.ReaderAt, size int64) (*Reader, error) {
	head := make([]byte, len(magic))
	if size < int64(len(magic)+trailerSize) {
		return nil, damaged("%d bytes are too few", size)
	}
	if err := readAt(r, head, 0); err != nil {
		return nil, err
	}
	if err := checkMagic(head); err != nil {
		return nil, err
	}
	x := &Reader{trailer: make([]byte, trailerSize)}
	if err := readAt(r, x.trailer, size-trailerSize); err != nil {
		return nil, err
	}
	end := int64(binary.LittleEndian.Uint64(x.trailer[16:]))
	if string(x.trailer[:8]) != trailerMagic || end < int64(len(magic)) || end > size-trailerSize {
		return nil, damaged("it has no end")
	}
	x.records = binary.LittleEndian.Uint64(x.trailer[8:])
	if err := x.amendments(io.NewSectionReader(r, end, size-trailerSize-end)); err != nil {
		return nil, err
	}
	x.sums.Reset()
	x.left = end - int64(len(magic))
	x.in = bufio.NewReaderSize(io.NewSectionReader(r, int64(len(magic)), x.left), blockSize)
	return x, nil
}

// Len is how many records there are, if the index turns out not to be damaged.
func (x *Reader) Len() uint64 { return x.records }

// Next reads the next record into r, whose slice of attributes is used again. io.EOF:
// that was all, and all of it was right.
func (x *Reader) Next(r *Record) error {
	for len(x.d.b) == 0 {
		if x.left == 0 {
			return x.end()
		}
		if err := x.nextBlock(); err != nil {
			return err
		}
	}
	if err := x.d.record(r); err != nil {
		return err
	}
	x.n++
	if len(x.amended) > 0 {
		x.amend(r)
	}
	return nil
}

// amend keeps what an amendment does not know, the content of a file.
func (x *Reader) amend(r *Record) {
	a, ok := x.amended[r.Path]
	if !ok || a.Type != r.Type {
		return
	}
	a.Size, a.Sum, a.Sparse = r.Size, r.Sum, r.Sparse
	a.Xattrs = append(r.Xattrs[:0], a.Xattrs...)
	*r = a
}

func (x *Reader) nextBlock() error {
	payload, sum, err := readBlock(x.in, x.left, x.block)
	if err != nil {
		return err
	}
	_, _ = x.sums.Write(sum) // never fails, see hash.Hash
	x.left -= int64(blockHeader + len(payload))
	x.block = payload
	x.d = decoder{b: payload}
	return nil
}

func (x *Reader) end() error {
	if x.done {
		return io.EOF
	}
	_, _ = x.sums.Write(x.amendSums)
	_, _ = x.sums.Write(x.trailer[:trailerSize-8])
	if x.n != x.records || x.sums.Sum64() != binary.LittleEndian.Uint64(x.trailer[trailerSize-8:]) {
		return damaged("parts are missing, or are of another")
	}
	x.done = true
	return io.EOF
}

// amendments reads the records that replace others.
func (x *Reader) amendments(r *io.SectionReader) error {
	left := r.Size()
	if left > maxBlock {
		return damaged("its amendments are too large")
	}
	in := bufio.NewReader(r)
	for left > 0 {
		payload, sum, err := readBlock(in, left, nil)
		if err != nil {
			return err
		}
		left -= int64(blockHeader + len(payload))
		x.amendSums = append(x.amendSums, sum...)
		d := decoder{b: payload}
		for len(d.b) > 0 {
			var a Record
			if err := d.record(&a); err != nil {
				return err
			}
			if x.amended == nil {
				x.amended = map[string]Record{}
			}
			x.amended[a.Path] = a
		}
	}
	return nil
}

// readBlock reads a block of at most left bytes into the memory of old, if that is
// enough. sum is its checksum as it stands in the header.
func readBlock(in *bufio.Reader, left int64, old []byte) (payload, sum []byte, err error) {
	var header [blockHeader]byte
	if left < blockHeader {
		return nil, nil, damaged("a block is cut off")
	}
	if err := readFull(in, header[:]); err != nil {
		return nil, nil, err
	}
	n := int64(binary.LittleEndian.Uint32(header[:]))
	if n == 0 || n > maxBlock || n > left-blockHeader {
		return nil, nil, damaged("a block of %d bytes", n)
	}
	payload = old[:0]
	if int64(cap(payload)) < n {
		payload = make([]byte, n)
	}
	payload = payload[:n]
	if err := readFull(in, payload); err != nil {
		return nil, nil, err
	}
	if xxhash.Sum64(payload) != binary.LittleEndian.Uint64(header[4:]) {
		return nil, nil, damaged("the checksum of a block is wrong")
	}
	return payload, header[4:], nil
}

func readFull(in io.Reader, b []byte) error {
	_, err := io.ReadFull(in, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it is cut off")
	}
	return err
}

func readAt(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return damaged("it is cut off")
	}
	return err
}
