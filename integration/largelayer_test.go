// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A large layer: directories in directories with small files, and large files.
const (
	largeDirs  = 4000
	largePer   = 2        // small files in a directory
	largeSmall = 512      // bytes of each, on average
	largeFiles = 14       // large ones
	largeLarge = 10 << 20 // bytes of each: more than a window has
)

// aLayer is a blob in containerd's content store, and its diffID.
type aLayer struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
}

// writeLargeLayers puts count layers of over 150 MiB into containerd's content
// store. They differ in one entry only: one and the same layer would be extracted
// once and shared.
func (n *node) writeLargeLayers(format string, count int) (layers []aLayer) {
	n.t.Helper()
	blob, hash := largeLayer(n.t, format)
	keep := content.WithLabels(map[string]string{"containerd.io/gc.root": "now"})
	for i := range count {
		end := append(tarHeader(n.t, fmt.Sprintf("number-%d", i), tar.TypeReg, 0), make([]byte, 1024)...)
		whole := slices.Concat(blob, pack(n.t, format, end))
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer + "+" + format, Digest: digest.FromBytes(whole), Size: int64(len(whole))}
		if err := content.WriteBlob(n.ctx(), n.client.ContentStore(), "large-"+desc.Digest.Encoded(), bytes.NewReader(whole), desc, keep); err != nil {
			n.t.Fatal(err)
		}
		layers = append(layers, aLayer{desc, sumWith(n.t, hash, end)})
	}
	return layers
}

// sumWith is the digest of what hash has got and end, and leaves hash as it is.
func sumWith(t *testing.T, h hash.Hash, end []byte) digest.Digest {
	t.Helper()
	cloner, ok := h.(hash.Cloner)
	if !ok {
		t.Fatalf("%T can't be cloned", h)
	}
	c, err := cloner.Clone()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write(end) // never fails, see hash.Hash
	return digest.NewDigest(digest.SHA256, c)
}

// largeLayer is a compressed layer without its end, and the hash of what it is
// uncompressed, the same every time. All large files have the same content, which
// is compressed once, as a gzip member or a zstd frame of its own: compressing is
// slow under the race detector.
func largeLayer(t *testing.T, format string) (blob []byte, sum hash.Hash) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	pool := bytes.Repeat(text(random, 1<<20), largeLarge>>20)
	var plain bytes.Buffer
	for i := range largeDirs {
		dir := fmt.Sprintf("usr/lib/%d/%d/", i%50, i)
		plain.Write(tarHeader(t, dir, tar.TypeDir, 0))
		for j := range largePer {
			size, from := random.IntN(2*largeSmall), random.IntN(largeLarge-2*largeSmall)
			plain.Write(tarHeader(t, fmt.Sprintf("%sfile-%d", dir, j), tar.TypeReg, size))
			plain.Write(pool[from : from+size])
			plain.Write(make([]byte, -size&511)) // entries begin at multiples of 512
		}
	}
	packedPool := pack(t, format, pool)
	sum = sha256.New()
	add := func(plain, packed []byte) {
		_, _ = sum.Write(plain) // never fails, see hash.Hash
		blob = append(blob, packed...)
	}
	add(plain.Bytes(), pack(t, format, plain.Bytes()))
	for i := range largeFiles {
		header := tarHeader(t, fmt.Sprintf("large-%d", i), tar.TypeReg, largeLarge)
		add(header, pack(t, format, header))
		add(pool, packedPool)
	}
	return blob, sum
}

func tarHeader(t *testing.T, name string, kind byte, size int) []byte {
	t.Helper()
	var b bytes.Buffer
	h := &tar.Header{Name: name, Typeflag: kind, Mode: 0o755, Size: int64(size), ModTime: time.Unix(1_700_000_000, 0)}
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pack compresses, with zstd for the window that levels up to 19 use at most. A
// stream that does not say how long it is asks for all of it.
func pack(t *testing.T, format string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	if format == "zstd" {
		w, err = zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false))
	} else {
		w, err = gzip.NewWriterLevel(&b, gzip.BestSpeed)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// text compresses to about a third, like programs and libraries.
func text(random *rand.Rand, size int) []byte {
	b := make([]byte, 0, size+32)
	for len(b) < size {
		word := random.Uint64()
		for range 8 {
			b = append(b, 'a'+byte(word&7))
			word >>= 5
		}
		if word&3 == 0 {
			b = append(b, "the same again and again "...)
		}
	}
	return b[:size]
}
