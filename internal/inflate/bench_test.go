// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"go/build"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// benchLimit is how much of a tree a benchmark takes, in bytes.
const benchLimit = 64 << 20

// benchTrees are what layers hold: text, and executables and libraries.
func benchTrees() map[string]string {
	return map[string]string{
		"source":   filepath.Join(build.Default.GOROOT, "src"),
		"binaries": "/usr/lib/x86_64-linux-gnu",
		"tools":    filepath.Join(build.Default.GOROOT, "pkg"),
	}
}

// gzipped is data as gzip -6 writes it, or Go's gzip where there is no such command.
func gzipped(b *testing.B, data []byte) []byte {
	cmd := exec.Command("gzip", "-6n")
	cmd.Stdin = bytes.NewReader(data)
	if out, err := cmd.Output(); err == nil {
		return out
	}
	var buf bytes.Buffer
	w := stdgzip.NewWriter(&buf)
	_, err := w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

func BenchmarkGzip(b *testing.B) {
	for name, dir := range benchTrees() {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		data := tree(b, dir, benchLimit)
		blob := gzipped(b, data)
		engines := map[string]func(io.Reader) error{
			"own":          func(r io.Reader) error { return drain(Open(r, Gzip, Options{})) },
			"ownKlauspost": func(r io.Reader) error { return drain(Open(r, Gzip, Options{Engine: Klauspost})) },
			"klauspost": func(r io.Reader) error {
				z, err := gzip.NewReader(r)
				return copyOut(z, err)
			},
			"stdlib": func(r io.Reader) error {
				z, err := stdgzip.NewReader(r)
				return copyOut(z, err)
			},
		}
		for _, engine := range []string{"own", "ownKlauspost", "klauspost", "stdlib"} {
			b.Run(name+"/"+engine, func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					if err := engines[engine](bytes.NewReader(blob)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func drain(r Reader, err error) error {
	for err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	return r.Close()
}

// copyOut reads all of r in pieces of a chunk.
func copyOut(r io.Reader, err error) error {
	buf := make([]byte, ChunkSize)
	for err == nil {
		_, err = r.Read(buf)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
