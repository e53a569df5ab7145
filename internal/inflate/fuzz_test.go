// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"testing"

	"github.com/containerd/errdefs"
)

// FuzzInflate: the inflater and compress/flate accept the same streams and make
// the same of them.
func FuzzInflate(f *testing.F) {
	contents := samples(f)
	for name := range deflaters() {
		w := deflater(f, name)
		for content, data := range contents {
			f.Add(deflated(f, data[:min(len(data), 600+len(content))], w))
		}
	}
	for _, c := range codeCases {
		var w bitWriter
		w.dynamic(true, c.litlens, c.dists)
		f.Add(append(w.bytes(), "some data to decode, long enough for the fast loop of the inflater"...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = sameAsFlate(t, data)
	})
}

// FuzzGzip: both engines agree on every blob, and with the standard library but
// for its own limit on names (512 bytes) and its leniency on reserved flags.
func FuzzGzip(f *testing.F) {
	text := samples(f)["text"][:2000]
	one := gz(f, text)
	f.Add(one)
	f.Add(join(one, member(31, "\x03\x00abcname\x00comment\x00", text[:50]), one))
	f.Add(join(one, make([]byte, 20)))
	f.Add(member(0, "", nil))
	f.Add(member(1<<6, "", text[:9]))
	f.Fuzz(func(t *testing.T, blob []byte) {
		got, err := decode(t, bytes.NewReader(blob), Gzip, Options{})
		other, otherErr := decode(t, bytes.NewReader(blob), Gzip, Options{Engine: Klauspost})
		if (err == nil) != (otherErr == nil) || err == nil && !bytes.Equal(got, other) {
			t.Fatalf("own: %d bytes, %v; klauspost: %d bytes, %v", len(got), err, len(other), otherErr)
		}
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Fatalf("error without its class: %v", err)
		}
		inPlace, placeErr := placed(t, blob)
		if (err == nil) != (placeErr == nil) || !bytes.Equal(got, inPlace) {
			t.Fatalf("Next: %d bytes, %v; Place: %d bytes, %v", len(got), err, len(inPlace), placeErr)
		}
		want, wantErr := stdlib(blob)
		switch {
		case err == nil && wantErr == nil && !bytes.Equal(got, want):
			t.Fatalf("%d bytes, the standard library has %d", len(got), len(want))
		case err == nil && wantErr != nil && (len(blob) < 512 || !errors.Is(wantErr, stdgzip.ErrHeader)):
			t.Fatalf("accepted, the standard library says %v", wantErr)
		case err != nil && wantErr == nil && !bytes.Contains([]byte(err.Error()), []byte("reserved flags")):
			t.Fatalf("%v, the standard library accepts it", err)
		}
	})
}

func stdlib(blob []byte) ([]byte, error) {
	z, err := stdgzip.NewReader(bytes.NewReader(blob))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// FuzzZstd: whatever the blob is, it is decoded or refused with a class.
func FuzzZstd(f *testing.F) {
	text := samples(f)["text"][:2000]
	f.Add(join(frame(f, text), streamed(f, text)))
	f.Add([]byte("\x50\x2a\x4d\x18\x05\x00\x00\x00hello"))
	f.Fuzz(func(t *testing.T, blob []byte) {
		_, err := decode(t, bytes.NewReader(blob), Zstd, Options{MaxWindow: 1 << 20})
		if err != nil && !errdefs.IsInvalidArgument(err) && !errdefs.IsResourceExhausted(err) {
			t.Fatalf("error without its class: %v", err)
		}
	})
}
