// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	stdgzip "compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

var engines = map[string]Options{"own": {Engine: Own}, "klauspost": {Engine: Klauspost}}

// member is a gzip member by hand: flags, the fields they announce, and less than 64 KiB of data.
func member(flags byte, fields string, data []byte) []byte {
	header := append([]byte{gzipID1, gzipID2, gzipDeflate, flags, 1, 2, 3, 4, 0, 255}, fields...)
	if flags&flagHeaderCRC != 0 {
		header = binary.LittleEndian.AppendUint16(header, uint16(crc32.ChecksumIEEE(header)))
	}
	var w bitWriter
	w.stored(true, data)
	b := join(header, w.bytes())
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(data))
	return binary.LittleEndian.AppendUint32(b, uint32(len(data)))
}

// gz is data as one member with small dynamic blocks.
func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := stdgzip.NewWriter(&buf)
	for len(data) > 0 {
		n := min(len(data), 700)
		if _, err := w.Write(data[:n]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// changed is b with its byte at i, from the end if negative, inverted.
func changed(b []byte, i int) []byte {
	b = bytes.Clone(b)
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 0xff
	return b
}

func TestMembers(t *testing.T) {
	hello := member(0, "", []byte("hello"))
	name := strings.Repeat("n", maxField-1) + "\x00"
	extra := "\xff\xff" + strings.Repeat("e", 0xffff)
	cases := []struct {
		name, want string
		blob       []byte
		bad        string // part of the message, if it is refused
		cut        bool   // it ends early
	}{
		{name: "one", blob: hello, want: "hello"},
		{name: "empty", blob: member(0, "", nil)},
		{name: "three", blob: join(hello, hello, hello), want: "hellohellohello"},
		{name: "empty ones", blob: join(member(0, "", nil), hello, member(0, "", nil), member(0, "", nil)), want: "hello"},
		{name: "history between", blob: join(gz(t, []byte("abcabcabc")), gz(t, []byte("abcabcabc"))), want: "abcabcabcabcabcabc"},
		{name: "extra", blob: member(flagExtra, "\x03\x00abc", []byte("x")), want: "x"},
		{name: "longest extra", blob: member(flagExtra, extra, []byte("x")), want: "x"},
		{name: "name", blob: member(flagName, "a\x00", []byte("x")), want: "x"},
		{name: "comment", blob: member(flagComment, "\x00", []byte("x")), want: "x"},
		{name: "longest name", blob: member(flagName, name, []byte("x")), want: "x"},
		{name: "header checksum", blob: member(flagHeaderCRC, "", []byte("x")), want: "x"},
		{name: "text flag", blob: member(1, "", []byte("x")), want: "x"},
		{name: "all", blob: member(31, extra+name+name, []byte("x")), want: "x"},
		{name: "nothing", blob: nil, bad: "ends early", cut: true},
		{name: "name too long", blob: member(flagName, "n"+name, nil), bad: "64 KiB"},
		{name: "comment too long", blob: member(flagComment, "n"+name, nil), bad: "64 KiB"},
		{name: "reserved 5", blob: member(1<<5, "", nil), bad: "reserved"},
		{name: "reserved 7", blob: member(1<<7, "", nil), bad: "reserved"},
		{name: "wrong ID1", blob: changed(hello, 0), bad: "not gzip"},
		{name: "wrong ID2", blob: changed(hello, 1), bad: "not gzip"},
		{name: "wrong method", blob: changed(hello, 2), bad: "method"},
		{name: "wrong header checksum", blob: changed(member(flagHeaderCRC, "", nil), 10), bad: "header"},
		{name: "wrong checksum", blob: changed(hello, -8), bad: "checksum", want: "hello"},
		{name: "wrong size", blob: changed(hello, -1), bad: "size", want: "hello"},
		{name: "second wrong", blob: join(hello, changed(hello, -5)), bad: "checksum", want: "hellohello"},
		{name: "bad data", blob: changed(hello, 12), bad: "offset"},
		{name: "garbage", blob: join(hello, []byte("garbage garbage")), bad: "garbage", want: "hello"},
		{name: "zeros", blob: join(hello, make([]byte, 512)), bad: "garbage", want: "hello"},
		{name: "one zero", blob: join(hello, make([]byte, 1)), bad: "garbage", want: "hello"},
		{name: "cut magic", blob: join(hello, []byte{gzipID1}), bad: "ends early", cut: true, want: "hello"},
	}
	for _, c := range cases {
		for engine, opts := range engines {
			got, err := decode(t, bytes.NewReader(c.blob), Gzip, opts)
			if string(got) != c.want {
				t.Errorf("%s, %s: got %q", c.name, engine, got)
			}
			if c.bad == "" && err != nil || c.bad != "" && !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s, %s: %v", c.name, engine, err)
			}
			if c.bad != "" && err != nil && !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s, %s: %v does not say %q", c.name, engine, err, c.bad)
			}
			if errors.Is(err, io.ErrUnexpectedEOF) != c.cut {
				t.Errorf("%s, %s: %v, cut %v", c.name, engine, err, c.cut)
			}
		}
	}
}

// TestTruncated cuts a blob of two members after each byte.
func TestTruncated(t *testing.T) {
	data := samples(t)["text"][:1500]
	one := gz(t, data)
	first := join(one, member(31, "\x03\x00abcname\x00comment\x00", data[:50]))
	for engine, opts := range engines {
		for n := range first {
			got, err := decode(t, bytes.NewReader(first[:n]), Gzip, opts)
			if n == len(one) {
				if err != nil {
					t.Errorf("%s: a whole member: %v", engine, err)
				}
				continue
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) || !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: after %d bytes: %v", engine, n, err)
			}
			if !bytes.HasPrefix(join(data, data[:50]), got) {
				t.Errorf("%s: after %d bytes: wrong data", engine, n)
			}
		}
	}
}

// TestFlipped changes each byte: that is found, or did not matter.
func TestFlipped(t *testing.T) {
	data := samples(t)["text"][:1500]
	blob := gz(t, data)
	for engine, opts := range engines {
		for i := range blob {
			for _, flip := range []byte{1, 0xff} {
				bad := bytes.Clone(blob)
				bad[i] ^= flip
				got, err := decode(t, bytes.NewReader(bad), Gzip, opts)
				if err == nil && !bytes.Equal(got, data) {
					t.Fatalf("%s: byte %d ^ %#x went unnoticed", engine, i, flip)
				}
				if err != nil && !errdefs.IsInvalidArgument(err) {
					t.Fatalf("%s: byte %d ^ %#x: %v", engine, i, flip, err)
				}
			}
		}
	}
}

// TestManyMembers has members of every small size, whose borders meet those of the
// buffers everywhere.
func TestManyMembers(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	text := samples(t)["mixed"]
	var blob, want []byte
	for len(blob) < 2*inputSize {
		data := text[rng.IntN(1000):][:rng.IntN(3000)]
		if rng.IntN(50) == 0 {
			data = text[:rng.IntN(len(text))]
		}
		var buf bytes.Buffer
		w, err := stdgzip.NewWriterLevel(&buf, rng.IntN(10))
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(data)
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		blob, want = append(blob, buf.Bytes()...), append(want, data...)
	}
	for engine, opts := range engines {
		got, err := decode(t, bytes.NewReader(blob), Gzip, opts)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v", engine, len(got), len(want), err)
		}
	}
}
