// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/internal/inflate"
)

// formats are how the corpus' layers are compressed, by the ending of their names.
var formats = map[string]struct {
	inflate   inflate.Format
	mediaType string
}{
	"gz":  {inflate.Gzip, ocispec.MediaTypeImageLayerGzip},
	"zst": {inflate.Zstd, ocispec.MediaTypeImageLayerZstd},
}

// corpus is a directory of layers. What was found out about them is kept: it takes
// reading them through.
type corpus struct {
	dir    string
	layers map[string]*layer // by path
}

// layer is one blob of the corpus.
type layer struct {
	path   string
	name   string // without the ending of its compression
	format string // key of formats
	desc   ocispec.Descriptor
	diffID digest.Digest
	size   int64 // uncompressed
}

func openCorpus(dir string) (*corpus, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("no corpus (make one with: go run ./bench/mkcorpus): %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory of layers", dir)
	}
	return &corpus{dir: dir, layers: map[string]*layer{}}, nil
}

// generated says whether mkcorpus made it. What is asked for is asked of real layers.
func (c *corpus) generated() bool {
	_, err := os.Stat(filepath.Join(c.dir, "VERSION"))
	return err == nil
}

// names are the layers that a word of a scenario stands for: itself, or the small
// layers for "f". It is empty if not all are there.
func (c *corpus) names(words []string, format string) []string {
	var names []string
	for _, word := range words {
		found := []string{word}
		if word == "f" {
			found = c.small(format)
		}
		for _, name := range found {
			if _, err := os.Stat(c.path(name, format)); err != nil {
				return nil
			}
		}
		if len(found) == 0 {
			return nil
		}
		names = append(names, found...)
	}
	return names
}

func (c *corpus) small(format string) []string {
	paths, err := filepath.Glob(filepath.Join(c.dir, "f", "*.tar."+format))
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(paths))
	for _, path := range paths {
		names = append(names, "f/"+strings.TrimSuffix(filepath.Base(path), ".tar."+format))
	}
	slices.Sort(names)
	return names
}

func (c *corpus) path(name, format string) string {
	return filepath.Join(c.dir, filepath.FromSlash(name)+".tar."+format)
}

// layer reads a blob through for its digest and its diffID.
func (c *corpus) layer(name, format string) (_ *layer, err error) {
	path := c.path(name, format)
	if l := c.layers[path]; l != nil {
		return l, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	blob := sha256.New()
	tee := io.TeeReader(f, blob)
	l := &layer{path: path, name: name, format: format}
	if err = c.unpackedSum(l, tee); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	l.desc = ocispec.Descriptor{
		MediaType: formats[format].mediaType,
		Digest:    digest.NewDigest(digest.SHA256, blob),
		Size:      info.Size(),
	}
	c.layers[path] = l
	return l, nil
}

// unpackedSum finds the digest and the size of the uncompressed layer. The unpacker
// compares the digest with what each side found, so a mistake here can't go unseen.
func (c *corpus) unpackedSum(l *layer, blob io.Reader) error {
	for format := range formats {
		if other := c.layers[c.path(l.name, format)]; other != nil {
			l.diffID, l.size = other.diffID, other.size // the same tar, compressed in another way
			return nil
		}
	}
	hash := sha256.New()
	counted := &counter{w: hash}
	err := decompress(blob, formats[l.format].inflate, inflate.Klauspost, counted)
	l.diffID, l.size = digest.NewDigest(digest.SHA256, hash), counted.n
	return err
}

// counter counts what is written through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return c.w.Write(b)
}

// bytes is how much the layers of a scenario are when they are unpacked.
func (c *corpus) bytes(sc scenario) (sum int64, err error) {
	for _, name := range sc.layers {
		l, err := c.layer(name, sc.format)
		if err != nil {
			return 0, err
		}
		sum += l.size
	}
	return sum, nil
}

func decompress(blob io.Reader, format inflate.Format, engine inflate.Engine, to io.Writer) (err error) {
	r, err := inflate.Open(blob, format, inflate.Options{Engine: engine})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for {
		chunk, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := to.Write(chunk); err != nil {
			return err
		}
	}
}

// open is the layer's tar stream.
func (l *layer) open() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() {
		err := decompress(f, formats[l.format].inflate, inflate.Klauspost, w)
		_ = w.CloseWithError(errors.Join(err, f.Close())) // never fails
	}()
	return r, nil
}
