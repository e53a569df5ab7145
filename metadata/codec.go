// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Most strings in a snapshot end in a sha256 digest, and most label keys are
// from a short list. Both are packed: they are the bulk of a record.

const (
	strRaw    = 0 // length, bytes
	strDigest = 1 // length of the prefix, prefix, 32 bytes: prefix + "sha256:" + hex
	strKnown  = 2 // index into knownStrings
	strSame   = 3 // length of the prefix, prefix: strDigest with the digest given; records only

	strTagBits = 2

	digestPrefix = "sha256:"
	digestRawLen = 32
	digestLen    = len(digestPrefix) + 2*digestRawLen
)

// knownStrings is part of the format: append to it, never reorder.
var knownStrings = []string{
	"containerd.io/snapshot.ref",
	"containerd.io/snapshot/diff-id",
	"containerd.io/snapshot/parent-chain-id",
	"containerd.io/snapshot/uidmapping",
	"containerd.io/snapshot/gidmapping",
	"containerd.io/snapshot/cri.image-ref",
	"containerd.io/snapshot/cri.layer-digest",
	"containerd.io/snapshot/cri.manifest-digest",
	"containerd.io/snapshot/cri.image-layers",
	"containerd.io/gc.root",
}

var knownIndex = func() map[string]uint64 {
	m := make(map[string]uint64, len(knownStrings))
	for i, s := range knownStrings {
		m[s] = uint64(i)
	}
	return m
}()

// appendSame is appendString for a string that may end in the digest that another one
// of the same record ends in.
func appendSame(b []byte, s string, digest string) []byte {
	if digest != "" && strings.HasSuffix(s, digest) {
		prefix := s[:len(s)-len(digest)]
		b = binary.AppendUvarint(b, uint64(len(prefix))<<strTagBits|strSame)
		return append(b, prefix...)
	}
	return appendString(b, s)
}

// digestOf is the digest that s ends in, if it does.
func digestOf(s string) string {
	if _, _, ok := cutDigest(s); !ok {
		return ""
	}
	return s[len(s)-digestLen:]
}

func appendString(b []byte, s string) []byte {
	if i, ok := knownIndex[s]; ok {
		return binary.AppendUvarint(b, i<<strTagBits|strKnown)
	}
	if prefix, raw, ok := cutDigest(s); ok {
		b = binary.AppendUvarint(b, uint64(len(prefix))<<strTagBits|strDigest)
		b = append(b, prefix...)
		return append(b, raw[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(s))<<strTagBits|strRaw)
	return append(b, s...)
}

// cutDigest splits s into what precedes a trailing sha256 digest and the
// digest's bytes. It only says ok where putting them together gives s again:
// upper case hex, which is no valid digest, stays raw.
func cutDigest(s string) (prefix string, raw [digestRawLen]byte, ok bool) {
	if len(s) < digestLen {
		return "", raw, false
	}
	prefix, tail := s[:len(s)-digestLen], s[len(s)-digestLen:]
	hexPart, found := strings.CutPrefix(tail, digestPrefix)
	if !found || strings.ToLower(hexPart) != hexPart {
		return "", raw, false
	}
	if _, err := hex.Decode(raw[:], []byte(hexPart)); err != nil {
		return "", raw, false
	}
	return prefix, raw, true
}

// decoder reads the fields of a record one after another and remembers the
// first mistake, so that callers check once.
type decoder struct {
	b    []byte
	same string // what strSame stands for, if anything
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("damaged record: %s: %w", what, errdefs.ErrDataLoss)
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail("too short")
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("bad number")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail("too short")
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) string() string {
	head := d.uvarint()
	n := head >> strTagBits
	switch head & (1<<strTagBits - 1) {
	case strRaw:
		return string(d.take(n))
	case strDigest:
		prefix := d.take(n)
		raw := d.take(digestRawLen)
		return string(prefix) + digestPrefix + hex.EncodeToString(raw)
	case strKnown:
		if n < uint64(len(knownStrings)) {
			return knownStrings[n]
		}
	case strSame:
		if prefix := d.take(n); d.same != "" {
			return string(prefix) + d.same
		}
	}
	d.fail("unknown string")
	return ""
}

// finish reports the first mistake, or that bytes are left over.
func (d *decoder) finish() error {
	if d.err == nil && len(d.b) != 0 {
		d.fail("bytes left over")
	}
	return d.err
}
