// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
)

// blobs is one content in all formats.
func blobs(t testing.TB, data []byte) map[Format][]byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	half := len(data) / 2
	return map[Format][]byte{
		Uncompressed: data,
		Gzip:         join(gz(t, data[:half]), gz(t, data[half:])),
		Zstd:         w.EncodeAll(data[half:], w.EncodeAll(data[:half], nil)),
	}
}

// each runs f for every format and engine.
func each(t *testing.T, data []byte, f func(t *testing.T, format Format, opts Options, blob []byte)) {
	t.Helper()
	for format, blob := range blobs(t, data) {
		for engine, opts := range engines {
			if format == Gzip || engine == "own" {
				t.Run(format.String()+" "+engine, func(t *testing.T) { f(t, format, opts, blob) })
			}
		}
	}
}

// stuttering returns nothing now and then, as a reader may.
type stuttering struct {
	r io.Reader
	n int
}

func (s *stuttering) Read(p []byte) (int, error) {
	if s.n++; s.n%3 != 0 {
		return 0, nil
	}
	return s.r.Read(p[:min(len(p), 7)])
}

func TestSources(t *testing.T) {
	data := samples(t)["text"][:100000]
	sources := map[string]func(io.Reader) io.Reader{
		"one byte":   iotest.OneByteReader,
		"half":       iotest.HalfReader,
		"with EOF":   iotest.DataErrReader,
		"both":       func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.OneByteReader(r)) },
		"stuttering": func(r io.Reader) io.Reader { return &stuttering{r: r} },
	}
	each(t, data, func(t *testing.T, format Format, opts Options, blob []byte) {
		for name, wrap := range sources {
			r, err := Open(wrap(bytes.NewReader(blob)), format, opts)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readAll(t, r)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(data), err)
			}
			if n := r.InputOffset(); n != int64(len(blob)) {
				t.Errorf("%s: InputOffset %d of %d", name, n, len(blob))
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

var errSource = errors.New("the disk is on fire")

// TestSourceFails checks that an error of the source comes out as it is, after
// what could still be decoded, wherever it happens.
func TestSourceFails(t *testing.T) {
	data := samples(t)["text"][:30000]
	each(t, data, func(t *testing.T, format Format, opts Options, blob []byte) {
		for _, sourceErr := range []error{errSource, iotest.ErrTimeout, io.ErrUnexpectedEOF} {
			for n := 0; n <= len(blob); n += 1 + len(blob)/300 {
				src := io.MultiReader(bytes.NewReader(blob[:n]), iotest.ErrReader(sourceErr))
				got, err := decode(t, iotest.DataErrReader(src), format, opts)
				if !errors.Is(err, sourceErr) || errdefs.IsInvalidArgument(err) {
					t.Fatalf("after %d bytes: %v", n, err)
				}
				if !bytes.HasPrefix(data, got) {
					t.Fatalf("after %d bytes: wrong data", n)
				}
			}
		}
	})
}

func TestTimeout(t *testing.T) {
	data := samples(t)["random"]
	each(t, data, func(t *testing.T, format Format, opts Options, blob []byte) {
		if _, err := decode(t, iotest.TimeoutReader(bytes.NewReader(blob)), format, opts); !errors.Is(err, iotest.ErrTimeout) {
			t.Error(err)
		}
	})
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

// TestSilence checks that a source which never delivers is given up.
func TestSilence(t *testing.T) {
	each(t, []byte("x"), func(t *testing.T, format Format, opts Options, _ []byte) {
		if _, err := decode(t, silent{}, format, opts); !errors.Is(err, io.ErrNoProgress) {
			t.Error(err)
		}
	})
}

func TestClose(t *testing.T) {
	each(t, make([]byte, 3*ChunkSize), func(t *testing.T, format Format, opts Options, blob []byte) {
		r, err := Open(bytes.NewReader(blob), format, opts)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		before := r.InputOffset()
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			if chunk, err := r.Next(); len(chunk) != 0 || !errdefs.IsFailedPrecondition(err) {
				t.Errorf("after Close: %d bytes, %v", len(chunk), err)
			}
			if r.InputOffset() != before {
				t.Errorf("after Close: InputOffset %d, not %d", r.InputOffset(), before)
			}
		}
	})
}

func TestFormats(t *testing.T) {
	for format, blob := range blobs(t, samples(t)["text"][:1000]) {
		if got := Detect(blob[:4]); got != format {
			t.Errorf("%v detected as %v", format, got)
		}
		if got := Detect(blob[:2]); got != Uncompressed {
			t.Errorf("two bytes of %v detected as %v", format, got)
		}
	}
	if got := Detect([]byte{0x5a, 0x2a, 0x4d, 0x18}); got != Zstd {
		t.Errorf("a skippable frame detected as %v", got)
	}
	if _, err := Open(nil, 7, Options{}); !errdefs.IsNotImplemented(err) {
		t.Errorf("format 7: %v", err)
	}
	if _, err := Open(nil, Gzip, Options{Engine: 7}); !errdefs.IsNotImplemented(err) {
		t.Errorf("engine 7: %v", err)
	}
}
