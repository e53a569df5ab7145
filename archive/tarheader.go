// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"errors"
	"math"
	"strconv"
)

// header is a header block, see tar(5) for what is where.
type header []byte

func (h header) zero() bool {
	for _, c := range h {
		if c != 0 {
			return false
		}
	}
	return true
}

func (h header) typ() byte { return h[156] }

// check compares the checksum, for which the checksum's own bytes are spaces.
// Some old programs add the bytes as signed ones.
func (h header) check() error {
	want, err := h.number(148, 8)
	if err != nil {
		return bad("a header has no checksum")
	}
	var unsigned, high int64
	for _, c := range h[:blockLen] {
		unsigned += int64(c)
		high += int64(c >> 7)
	}
	for _, c := range h[148:156] {
		unsigned += ' ' - int64(c)
		high -= int64(c >> 7)
	}
	signed := unsigned - high<<8
	if want != unsigned && want != signed {
		return bad("a header's checksum is wrong")
	}
	return nil
}

var errNumber = errors.New("not a number")

// number reads a field: octal, or binary if the first bit is set.
func (h header) number(at, length int) (int64, error) {
	b := h[at : at+length]
	if b[0]&0x80 != 0 {
		return binaryNumber(b)
	}
	b = bytes.Trim(b, " \x00")
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	if len(b) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(string(b), 8, 63)
	if err != nil {
		return 0, errNumber
	}
	return int64(n), nil
}

// binaryNumber is two's complement, big endian, less the first bit.
func binaryNumber(b []byte) (int64, error) {
	negative := b[0]&0x40 != 0
	var n uint64
	for i, c := range b {
		if negative {
			c ^= 0xff
		}
		if i == 0 {
			c &= 0x7f
		}
		if n>>56 > 0 {
			return 0, errNumber
		}
		n = n<<8 | uint64(c)
	}
	if n > math.MaxInt64 {
		return 0, errNumber
	}
	if negative {
		return ^int64(n), nil
	}
	return int64(n), nil
}

func (h header) text(at, length int) string { return cString(h[at : at+length]) }

// name is the path as the header alone has it.
func (h header) name() string {
	name := h.text(0, 100)
	if string(h[257:263]) != "ustar\x00" { // GNU has other things there, v7 nothing
		return name
	}
	prefix := h.text(345, 155)
	if string(h[508:512]) == "tar\x00" { // star
		prefix = h.text(345, 131)
	}
	if prefix != "" {
		name = prefix + "/" + name
	}
	return name
}

// hasMagic: all formats but the oldest say that they are tar.
func (h header) hasMagic() bool {
	return string(h[257:263]) == "ustar\x00" || string(h[257:265]) == "ustar  \x00"
}

func (h header) entry(size int64) (*entry, error) {
	e := &entry{typ: h.typ(), name: h.name(), link: h.text(157, 100), size: size, stored: size}
	for _, f := range []struct {
		at, length int
		what       string
		set        func(int64) bool
	}{
		{100, 8, "mode", func(n int64) bool { e.mode = uint32(n & 0o7777); return true }},
		{108, 8, "uid", func(n int64) bool { e.uid = uint32(n); return validID(n) }},
		{116, 8, "gid", func(n int64) bool { e.gid = uint32(n); return validID(n) }},
		{136, 12, "mtime", func(n int64) bool { e.mtime.sec = n; return true }},
		{329, 8, "major", func(n int64) bool { e.major = uint32(n); return n >= 0 && n < maxMajor }},
		{337, 8, "minor", func(n int64) bool { e.minor = uint32(n); return n >= 0 && n < maxMinor }},
	} {
		if f.at >= 329 && (!h.hasMagic() || !e.isDevice()) {
			continue // v7 has no device numbers, and files need none
		}
		n, err := h.number(f.at, f.length)
		if err != nil || !f.set(n) {
			return nil, bad("%s of entry %s is not valid", f.what, quote(e.name))
		}
	}
	return e, nil
}

// validID: ids beyond would be cut off by the kernel, and 2^32-1 means "leave
// the owner", so that a file would become root's.
func validID(n int64) bool { return n >= 0 && n < math.MaxUint32 }

func (e *entry) isDevice() bool { return e.typ == typeChar || e.typ == typeBlock }

// The kernel's device numbers have 12 and 20 bits (include/linux/kdev_t.h), and
// mknod(2) cuts off what is beyond: the device 4096:0 would become 0:0, which is
// a whiteout.
const (
	maxMajor = 1 << 12
	maxMinor = 1 << 20
)
