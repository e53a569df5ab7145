// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// readAll drains a Reader, checking what Next promises on the way.
func readAll(t testing.TB, r Reader) ([]byte, error) {
	t.Helper()
	var all []byte
	for before := r.InputOffset(); ; {
		chunk, err := r.Next()
		if now := r.InputOffset(); now < before {
			t.Fatalf("InputOffset went back from %d to %d", before, now)
		} else {
			before = now
		}
		if err != nil {
			if len(chunk) != 0 {
				t.Fatalf("%d bytes together with %v", len(chunk), err)
			}
			if _, again := r.Next(); !errors.Is(again, err) {
				t.Fatalf("error %v, then %v", err, again)
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return all, err
		}
		if len(chunk) == 0 || len(chunk) > ChunkSize {
			t.Fatalf("chunk of %d bytes", len(chunk))
		}
		all = append(all, chunk...)
	}
}

// decode opens and drains r.
func decode(t testing.TB, r io.Reader, f Format, opts Options) ([]byte, error) {
	t.Helper()
	reader, err := Open(r, f, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}()
	return readAll(t, reader)
}

// inflateAll decodes one raw DEFLATE stream and tells how long it was.
func inflateAll(src io.Reader) ([]byte, int64, error) {
	f := newOwnBody(src).(ownBody).f // from the pool, where others left their state
	defer inflaters.Put(f)
	var all []byte
	for {
		chunk, err := f.next(f.out.mine())
		all = append(all, chunk...)
		if errors.Is(err, io.EOF) {
			return all, f.offset(), nil
		}
		if err != nil {
			return all, f.offset(), err
		}
	}
}

// tree is a tar of the files under dir, at most limit bytes of it.
func tree(t testing.TB, dir string, limit int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if buf.Len() > limit {
			return fs.SkipAll
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: strings.TrimPrefix(path, "/"), Mode: 0o644, Size: int64(len(data))}
		return errors.Join(w.WriteHeader(h), func() error { _, err := w.Write(data); return err }())
	})
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
