// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
)

// frame is data as one zstd frame with its checksum.
func frame(t testing.TB, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, append(opts, zstd.WithZeroFrames(true))...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// streamed is data as a frame that does not state its size.
func streamed(t testing.TB, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, opts...)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestFrames(t *testing.T) {
	skippable := []byte("\x50\x2a\x4d\x18\x05\x00\x00\x00hello")
	data := samples(t)["mixed"]
	whole := frame(t, data)
	cases := []struct {
		name     string
		blob     []byte
		want     []byte
		bad, cut bool
	}{
		{name: "one", blob: whole, want: data},
		{name: "streamed", blob: streamed(t, data), want: data},
		{name: "two", blob: join(whole, frame(t, data[:100])), want: join(data, data[:100])},
		{name: "empty", blob: frame(t, nil)},
		{name: "skippable", blob: join(skippable, frame(t, []byte("x")), skippable, frame(t, []byte("y")), skippable), want: []byte("xy")},
		{name: "only skippable", blob: skippable},
		{name: "nothing", bad: true, cut: true},
		{name: "garbage", blob: join(whole, []byte("garbage")), want: data, bad: true},
		{name: "zeros", blob: join(whole, make([]byte, 512)), want: data, bad: true},
		{name: "checksum", blob: changed(whole, -1), want: data, bad: true},
		{name: "not zstd", blob: []byte("not zstd"), bad: true},
	}
	for n := 1; n < 4; n++ {
		name := "cut magic"
		cases = append(cases, struct {
			name     string
			blob     []byte
			want     []byte
			bad, cut bool
		}{name: name, blob: join(whole, whole[:n]), want: data, bad: true, cut: true})
	}
	for _, c := range cases {
		got, err := decode(t, bytes.NewReader(c.blob), Zstd, Options{})
		if c.bad && !errdefs.IsInvalidArgument(err) || !c.bad && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) != c.cut {
			t.Errorf("%s: %v, cut %v", c.name, err, c.cut)
		}
		if !bytes.Equal(got, c.want) && (!c.bad || !bytes.HasPrefix(c.want, got)) {
			t.Errorf("%s: %d bytes, want %d", c.name, len(got), len(c.want))
		}
	}
}

func TestFramesTruncated(t *testing.T) {
	data := samples(t)["text"][:2000]
	first := frame(t, data)
	blob := join(first, []byte("\x50\x2a\x4d\x18\x05\x00\x00\x00hello"), streamed(t, data))
	for n := range blob {
		_, err := decode(t, bytes.NewReader(blob[:n]), Zstd, Options{})
		whole := n == len(first) || n == len(first)+13
		if whole != (err == nil) || !whole && !errdefs.IsInvalidArgument(err) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestFramesFlipped(t *testing.T) {
	data := samples(t)["text"][:2000]
	blob := frame(t, data)
	for i := range blob {
		bad := changed(blob, i)
		got, err := decode(t, bytes.NewReader(bad), Zstd, Options{})
		known := errdefs.IsInvalidArgument(err) || errdefs.IsResourceExhausted(err)
		if err != nil && !known {
			t.Errorf("byte %d: %v", i, err)
		}
		if err == nil && !bytes.Equal(got, data) {
			t.Logf("byte %d: %d other bytes (a flag that turns the checksum off)", i, len(got))
		}
	}
}

func TestWindow(t *testing.T) {
	data := make([]byte, 3<<20)
	big := streamed(t, data, zstd.WithWindowSize(2<<20), zstd.WithSingleSegment(false))
	if _, err := decode(t, bytes.NewReader(big), Zstd, Options{MaxWindow: 1 << 20}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("window of 2 MiB, limit of 1: %v", err)
	}
	if got, err := decode(t, bytes.NewReader(big), Zstd, Options{MaxWindow: 2 << 20}); err != nil || len(got) != len(data) {
		t.Errorf("window of 2 MiB, limit of 2: %d bytes, %v", len(got), err)
	}
	single := frame(t, data, zstd.WithSingleSegment(true))
	if _, err := decode(t, bytes.NewReader(single), Zstd, Options{MaxWindow: 1 << 20}); !errdefs.IsResourceExhausted(err) {
		t.Errorf("single segment of 3 MiB, limit of 1: %v", err)
	}
	if _, err := Open(nil, Zstd, Options{MaxWindow: 1}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("limit of a byte: %v", err)
	}
}

// TestZstdDecodersAreReused, after a good blob, a broken one, one that was not read
// to its end, and under another limit: nothing of a blob shows in the next.
func TestZstdDecodersAreReused(t *testing.T) {
	data := samples(t)["mixed"]
	good := streamed(t, data, zstd.WithWindowSize(1<<20))
	for name, before := range map[string][]byte{
		"good": good, "cut": good[:len(good)/2], "broken": changed(good, -1), "nothing": nil,
	} {
		for _, limit := range []uint64{2 << 20, 4 << 20} {
			_, _ = decode(t, bytes.NewReader(before), Zstd, Options{MaxWindow: 2 << 20}) // what comes after is looked at
			got, err := decode(t, bytes.NewReader(good), Zstd, Options{MaxWindow: limit})
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("after %s, limit %d: %d bytes, %v", name, limit, len(got), err)
			}
		}
	}
	first, err := Open(bytes.NewReader(good), Zstd, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Next(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	at := first.InputOffset()
	if got, err := decode(t, bytes.NewReader(good), Zstd, Options{}); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after one that was left: %d bytes, %v", len(got), err)
	}
	if _, err := first.Next(); !errors.Is(err, errClosed) || first.Close() != nil || first.InputOffset() != at || at == 0 {
		t.Errorf("the closed reader: %v, at %d, was at %d", err, first.InputOffset(), at)
	}
}

// TestIdleDecoders: one decoder serves all readers that come one after the other,
// on whatever thread, and none is kept for good.
func TestIdleDecoders(t *testing.T) {
	var idle idleDecoders
	d, err := newZstdDecoder(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		idle.put(d)
		got := make(chan *zstdDecoder)
		go func() { got <- idle.get(1 << 20) }()
		if <-got != d {
			t.Fatal("a decoder was not found again")
		}
	}
	idle.put(d)
	if idle.get(2<<20) != nil || idle.get(1<<20) != nil {
		t.Error("a decoder with another limit was not dropped")
	}
	putNew(t, &idle)
	runtime.GC()
	if idle.get(1<<20) != nil {
		t.Error("an idle decoder survives a garbage collection")
	}
}

// putNew puts a decoder that nothing else refers to.
func putNew(t *testing.T, idle *idleDecoders) {
	t.Helper()
	d, err := newZstdDecoder(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	idle.put(d)
}
