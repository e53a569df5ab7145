// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// placeAll drains a reader the way that pieces of a layer are used: the chunk before stays
// as it is until the next is there, and what is older is overwritten by others.
func placeAll(t testing.TB, p placingReader) (all []byte, err error) {
	t.Helper()
	var bufs [3][]byte
	for i := range bufs {
		bufs[i] = make([]byte, p.Room())
	}
	for i := 0; err == nil; i++ {
		buf := bufs[i%len(bufs)]
		for j := range buf {
			buf[j] = 0xa5 // whatever was there before
		}
		var chunk []byte
		chunk, err = p.Place(buf)
		if len(chunk) > ChunkSize {
			t.Fatalf("chunk of %d bytes", len(chunk))
		}
		if len(chunk) > 0 && !within(buf, chunk) {
			t.Fatal("the chunk is not in the memory that was given")
		}
		all = append(all, chunk...)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return all, err
}

func within(buf, part []byte) bool {
	for i := range buf {
		if &buf[i] == &part[0] {
			return i+len(part) <= len(buf)
		}
	}
	return false
}

func placed(t testing.TB, blob []byte) ([]byte, error) {
	t.Helper()
	r, err := Open(bytes.NewReader(blob), Gzip, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, ok := r.(placingReader)
	if !ok {
		t.Fatal("the own inflater does not decode in place")
	}
	all, err := placeAll(t, p)
	if closeErr := r.Close(); closeErr != nil {
		t.Error(closeErr)
	}
	return all, err
}

// TestPlace: what is brought to a place of the caller's is what Next returns, with matches
// that go back into the chunk before, and from member to member.
func TestPlace(t *testing.T) {
	for name, data := range samples(t) {
		for len(data) > 0 && len(data) < 3*ChunkSize {
			data = append(data, data...) // more than one chunk
		}
		half := len(data) / 2
		for kind, blob := range map[string][]byte{
			"one member": gz(t, data), "members": join(gz(t, data[:half]), gz(t, nil), gz(t, data[half:])),
		} {
			got, err := placed(t, blob)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, %s: %d bytes of %d, %v", name, kind, len(got), len(data), err)
			}
		}
	}
}

// TestPlaceAndNext: a reader can be used in both ways, by turns.
func TestPlaceAndNext(t *testing.T) {
	data := bytes.Repeat(samples(t)["text"], 20)
	r, err := Open(bytes.NewReader(gz(t, data)), Gzip, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	buf := make([]byte, windowSize)
	for i := 0; err == nil; i++ {
		var chunk []byte
		if i%2 == 0 {
			chunk, err = r.(placingReader).Place(buf)
		} else {
			chunk, err = r.Next()
		}
		got = append(got, chunk...)
	}
	if !errors.Is(err, io.EOF) || !bytes.Equal(got, data) {
		t.Errorf("%d bytes of %d, %v", len(got), len(data), err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.(placingReader).Place(buf); err == nil {
		t.Error("a closed reader goes on")
	}
}
