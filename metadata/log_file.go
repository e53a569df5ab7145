// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/containerd/errdefs"
)

// metadata.log holds what metadata.db is rebuilt from when that is lost: every entry
// that is not an index, and every change of one since, in frames, one for each
// transaction. Behind the last frame there are zeros, which are on the disk already:
// writing over them changes neither the size of the file nor where it is.
//
//	header  32 bytes: logMagic, state, 3 bytes, salt (8), checksum of these
//	frame   24 bytes: frameMagic, length of the payload, transaction (8), checksum of
//	        these and the payload, 4 bytes; the payload; zeros up to a multiple of 8
//	payload entries: operation and bucket, length of the key, key, and for a put
//	        length of the value, value
//
// The checksum is CRC-32C, and begins with the salt: nothing that a client can put into
// a label looks like a frame.
const (
	logMagic    = "strata log 1\n\x00\x00\x00"
	logHeader   = 32
	frameMagic  = 0x53464c31
	frameHeader = 24
	frameAlign  = 8
	maxFrame    = 64 << 20 // of payload

	stateAt       = len(logMagic)
	stateComplete = 1
	// stateStopped: transactions could not be written to it.
	stateStopped = 2
	// stateAhead: it is complete, and metadata.db is not to be believed (ahead.go).
	stateAhead = 3
)

// The buckets that are in the log, by the number they have there: part of the format.
var loggedBuckets = [][]byte{nil, bucketSnapshots, bucketLayers, bucketBlobs, bucketMeta}

const (
	opPut    = 0x10
	opDelete = 0x20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// loggedAs is the number of a bucket in the log, 0 if it is an index and not there.
func loggedAs(bucket []byte) byte {
	for i, b := range loggedBuckets {
		if i > 0 && bytes.Equal(b, bucket) {
			return byte(i)
		}
	}
	return 0
}

// appendEntry adds a change to a payload. A nil value deletes.
func appendEntry(payload, bucket, key, value []byte) []byte {
	number := loggedAs(bucket)
	if number == 0 {
		return payload
	}
	op := byte(opPut)
	if value == nil {
		op = opDelete
	}
	payload = append(payload, op|number)
	payload = binary.AppendUvarint(payload, uint64(len(key)))
	payload = append(payload, key...)
	if value == nil {
		return payload
	}
	payload = binary.AppendUvarint(payload, uint64(len(value)))
	return append(payload, value...)
}

// entries calls fn for each change in a payload; a nil value is a deletion.
func entries(payload []byte, fn func(bucket, key, value []byte)) error {
	d := &decoder{b: payload}
	for len(d.b) > 0 && d.err == nil {
		op := d.byte()
		number := int(op & 0x0f)
		key := d.take(d.uvarint())
		var value []byte
		switch op &^ 0x0f {
		case opPut:
			if value = d.take(d.uvarint()); value == nil {
				value = []byte{}
			}
		case opDelete:
		default:
			d.fail("unknown operation")
		}
		if number == 0 || number >= len(loggedBuckets) {
			d.fail("unknown bucket")
		}
		if d.err == nil {
			fn(loggedBuckets[number], key, value)
		}
	}
	return d.err
}

// newSalt is different for each store.
func newSalt() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

func encodeHeader(state byte, salt uint64) []byte {
	b := make([]byte, logHeader)
	copy(b, logMagic)
	b[stateAt] = state
	binary.LittleEndian.PutUint64(b[20:], salt)
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

func decodeHeader(b []byte) (state byte, salt uint64, err error) {
	switch {
	case len(b) < logHeader, string(b[:stateAt]) != logMagic:
		return 0, 0, fmt.Errorf("it does not begin as a log does: %w", errdefs.ErrDataLoss)
	case binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli):
		return 0, 0, fmt.Errorf("its header is damaged: %w", errdefs.ErrDataLoss)
	}
	return b[stateAt], binary.LittleEndian.Uint64(b[20:]), nil
}

// encodeFrame is the frame of a transaction.
func encodeFrame(salt, id uint64, payload []byte) []byte {
	size := frameHeader + len(payload)
	b := make([]byte, (size+frameAlign-1)/frameAlign*frameAlign)
	binary.LittleEndian.PutUint32(b, frameMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(b[8:], id)
	copy(b[frameHeader:], payload)
	binary.LittleEndian.PutUint32(b[16:], frameSum(salt, b, len(payload)))
	return b
}

func frameSum(salt uint64, frame []byte, length int) uint32 {
	sum := crc32.Checksum(binary.LittleEndian.AppendUint64(nil, salt), castagnoli)
	sum = crc32.Update(sum, castagnoli, frame[:16])
	return crc32.Update(sum, castagnoli, frame[frameHeader:frameHeader+length])
}

// cutFrame reads the frame that b begins with. size is how much of b that is.
func cutFrame(salt uint64, b []byte) (id uint64, payload []byte, size int, ok bool) {
	if len(b) < frameHeader || binary.LittleEndian.Uint32(b) != frameMagic {
		return 0, nil, 0, false
	}
	length := int(binary.LittleEndian.Uint32(b[4:]))
	size = (frameHeader + length + frameAlign - 1) / frameAlign * frameAlign
	if length > maxFrame || size > len(b) || binary.LittleEndian.Uint32(b[16:]) != frameSum(salt, b, length) {
		return 0, nil, 0, false
	}
	return binary.LittleEndian.Uint64(b[8:]), b[frameHeader : frameHeader+length], size, true
}

// logContents is what a log says.
type logContents struct {
	// entries by bucket and key.
	entries map[string]map[string][]byte
	salt    uint64
	last    uint64 // transaction
	end     int64  // of the last frame
	// lost are bytes, before the end, that make no sense, and torn those behind it. gap: a
	// transaction is missing. stopped: the log was not written to up to the end.
	lost, torn   int64
	gap, stopped bool
	ahead        bool // see ahead.go
}

// complete says whether it is all there is up to its last transaction.
func (c *logContents) complete() bool { return c.lost == 0 && !c.gap && !c.stopped }

// readLog reads a whole log. Frames that are damaged are left out.
//
// ErrDataLoss: it is none, or its header is damaged.
func readLog(path string) (*logContents, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	state, salt, err := decodeHeader(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	c := &logContents{entries: map[string]map[string][]byte{}, salt: salt, end: logHeader, stopped: state != stateComplete && state != stateAhead, ahead: state == stateAhead}
	for _, bucket := range loggedBuckets[1:] {
		c.entries[string(bucket)] = map[string][]byte{}
	}
	for at := int64(logHeader); at < int64(len(b)); {
		id, payload, size, ok := cutFrame(salt, b[at:])
		if !ok {
			at += frameAlign // it may begin again behind what is damaged
			continue
		}
		c.lost += at - c.end
		c.apply(id, payload)
		at += int64(size)
		c.end = at
	}
	c.torn = int64(len(bytes.TrimRight(b[min(c.end, int64(len(b))):], "\x00")))
	return c, nil
}

func (c *logContents) apply(id uint64, payload []byte) {
	c.gap = c.gap || c.last != 0 && id != c.last && id != c.last+1
	c.last = id
	err := entries(payload, func(bucket, key, value []byte) {
		if value == nil {
			delete(c.entries[string(bucket)], string(key))
		} else {
			c.entries[string(bucket)][string(key)] = value
		}
	})
	c.gap = c.gap || err != nil
}

// format is that of the store, as the log has it.
func (c *logContents) format() (Format, error) {
	return decodeFormat("metadata.log", c.entries[string(bucketMeta)][string(keyFormat)])
}

// checkEntry says whether an entry that is logged can be read.
func checkEntry(bucket, key, value []byte) (err error) {
	n, ok := readNumber(key)
	switch {
	case bytes.Equal(bucket, bucketSnapshots):
		_, err = decodeRecord(value)
	case bytes.Equal(bucket, bucketLayers):
		_, err = decodeLayer(n, value)
	default:
		return nil
	}
	return errors.Join(err, keyError(ok, nil))
}
