// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"go/build"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	kflate "github.com/klauspost/compress/flate"
	"pgregory.net/rapid"
)

// sameAsFlate decodes data with the inflater and with compress/flate: both accept
// it, with the same bytes and the same end, or both refuse it.
func sameAsFlate(t interface {
	Helper()
	Fatalf(string, ...any)
}, data []byte) ([]byte, error) {
	t.Helper()
	src := bytes.NewReader(data)
	want, wantErr := io.ReadAll(flate.NewReader(src))
	got, n, err := inflateAll(bytes.NewReader(data))
	switch {
	case (err == nil) != (wantErr == nil):
		t.Fatalf("inflater says %v, compress/flate %v", err, wantErr)
	case err == nil && !bytes.Equal(got, want):
		t.Fatalf("decoded %d bytes, want %d others", len(got), len(want))
	case err == nil && int(n) != len(data)-src.Len():
		t.Fatalf("the stream ends at %d, want %d", n, len(data)-src.Len())
	case err != nil && !errdefs.IsInvalidArgument(err):
		t.Fatalf("error without its class: %v", err)
	case !bytes.HasPrefix(got, want) && !bytes.HasPrefix(want, got):
		t.Fatalf("refused after %d bytes that differ from compress/flate's %d", len(got), len(want))
	}
	return got, err
}

// samples are contents that drive a compressor to different kinds of blocks.
func samples(t testing.TB) map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 700<<10)
	few := make([]byte, 700<<10)
	skewed := make([]byte, 700<<10)
	for i := range random {
		random[i] = byte(rng.Uint32())
		few[i] = "ab"[rng.IntN(2)]
		skewed[i] = byte(min(rng.ExpFloat64()*9, 255)) // codes of all lengths
	}
	runs := make([]byte, 0, 700<<10)
	for len(runs) < 700<<10 {
		period := random[len(runs)%1000:][:1+rng.IntN(40)]
		runs = append(runs, bytes.Repeat(period, 1+rng.IntN(60))...)
	}
	mixed := bytes.Join([][]byte{random[:100<<10], runs[:100<<10], skewed[:100<<10], random[:100<<10]}, nil)
	return map[string][]byte{
		"empty": nil, "random": random, "few": few, "skewed": skewed, "runs": runs, "mixed": mixed,
		"zeros": make([]byte, 3*ChunkSize+17),
		"text":  tree(t, filepath.Join(build.Default.GOROOT, "src", "compress"), 1<<20),
	}
}

// compressor is what all writers are; making one anew is far slower than its work here.
type compressor interface {
	io.WriteCloser
	Reset(io.Writer)
}

// deflaters make the compressors at all their levels.
func deflaters() map[string]func() (compressor, error) {
	all := map[string]func() (compressor, error){}
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		all[fmt.Sprintf("stdlib%d", level)] = func() (compressor, error) { return flate.NewWriter(nil, level) }
		all[fmt.Sprintf("klauspost%d", level)] = func() (compressor, error) { return kflate.NewWriter(nil, level) }
	}
	return all
}

// deflater makes the compressor of that name.
func deflater(t testing.TB, name string) compressor {
	t.Helper()
	w, err := deflaters()[name]()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func deflated(t testing.TB, data []byte, w compressor) []byte {
	t.Helper()
	var buf bytes.Buffer
	w.Reset(&buf)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestEveryLevel(t *testing.T) {
	contents := samples(t)
	for name := range deflaters() {
		t.Run(name, func(t *testing.T) {
			w := deflater(t, name)
			size := 48 << 10 // more than a window
			if name == "klauspost9" {
				size = 6 << 10 // tries everything, minutes of it under the race detector
			}
			for content, data := range contents {
				data = data[:min(len(data), size)]
				got, _, err := inflateAll(bytes.NewReader(deflated(t, data, w)))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s: %d bytes instead of %d: %v", content, len(got), len(data), err)
				}
			}
		})
	}
}

func TestEverySize(t *testing.T) {
	contents := samples(t)
	for _, level := range []string{"stdlib0", "stdlib-2", "stdlib6", "klauspost1"} {
		w := deflater(t, level)
		for size := 0; size <= 70000; size += 1 + size/6 {
			for _, content := range []string{"text", "random", "runs"} {
				data := contents[content][:size]
				blob := deflated(t, data, w)
				if got, err := sameAsFlate(t, blob); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%s of %d bytes at %s: %v", content, size, level, err)
				}
			}
		}
	}
}

// TestChunkBorders moves what is decoded around the end of a chunk.
func TestChunkBorders(t *testing.T) {
	contents := samples(t)
	for _, level := range []string{"stdlib0", "stdlib1"} {
		w := deflater(t, level)
		for size := ChunkSize - 600; size <= ChunkSize+600; size += 97 {
			data := contents["mixed"][:size]
			if got, err := sameAsFlate(t, deflated(t, data, w)); err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes at %s: %v", size, level, err)
			}
		}
	}
}

// TestTokens decodes matches of any length and distance, against plain copying.
func TestTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w bitWriter
		var want []byte
		w.header(true, 1)
		for range rapid.IntRange(0, 3000).Draw(t, "tokens") {
			if len(want) == 0 || rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
				b := rapid.Byte().Draw(t, "literal")
				w.litlen(uint(b))
				want = append(want, b)
				continue
			}
			length := rapid.IntRange(3, maxMatch).Draw(t, "length")
			dist := rapid.IntRange(1, min(len(want), maxDist)).Draw(t, "dist")
			w.match(uint(length), uint(dist))
			for range length {
				want = append(want, want[len(want)-dist])
			}
		}
		w.litlen(endOfBlock)
		if got, err := sameAsFlate(t, w.bytes()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("decoded %d bytes, want %d: %v", len(got), len(want), err)
		}
	})
}

// TestEveryMatch has every length at small and at the largest distances, in the
// fast loop and, at the end of the input, out of it.
func TestEveryMatch(t *testing.T) {
	history := samples(t)["random"][:maxDist]
	dists := []uint{maxDist, maxDist - 1, 24577, 300, 258, 33}
	for d := uint(1); d <= 18; d++ {
		dists = append(dists, d)
	}
	for _, dist := range dists {
		for length := uint(3); length <= maxMatch; length += 1 + length/20 {
			want := bytes.Clone(history)
			var w bitWriter
			w.stored(false, history)
			w.header(true, 1)
			for range 2 + length%9 {
				w.match(length, dist)
				for range length {
					want = append(want, want[len(want)-int(dist)])
				}
			}
			w.litlen(endOfBlock)
			got, _, err := inflateAll(bytes.NewReader(w.bytes()))
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("length %d distance %d: %v", length, dist, err)
			}
		}
	}
}
