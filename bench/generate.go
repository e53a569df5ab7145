// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"time"
)

// generated describes a layer that is made here. Every directory has an entry.
type generated struct {
	name  string // in the corpus
	dirs  []string
	files int
	size  int // bytes a file
}

// bases are what the images with shared layers stand on: small, so that what is seen
// is the time of the others. Their directories differ in their times, so that a layer
// which leaves them out shows another tree on each.
var bases = []generated{
	{name: "base-a", dirs: []string{"etc", "usr", "usr/lib", "usr/share", "var"}, files: 200, size: 4 << 10},
	{name: "base-b", dirs: []string{"etc", "usr", "usr/lib", "opt"}, files: 200, size: 4 << 10},
}

// quickLayers take the place of a corpus for a quick try.
var quickLayers = []generated{
	{name: "a", dirs: []string{"usr", "usr/share", "usr/share/a"}, files: 400, size: 8 << 10},
	{name: "b", dirs: []string{"usr", "usr/lib", "usr/lib/b"}, files: 300, size: 24 << 10},
	{name: "c", dirs: []string{"usr", "usr/src", "usr/src/c"}, files: 3000, size: 3 << 10},
	{name: "d", dirs: []string{"usr", "usr/local", "usr/local/d"}, files: 40, size: 300 << 10},
	{name: "f/000", dirs: []string{"usr", "usr/share", "usr/share/f0"}, files: 12, size: 3 << 10},
	{name: "f/001", dirs: []string{"usr", "usr/share", "usr/share/f1"}, files: 12, size: 3 << 10},
}

// generate writes layers as a corpus has them.
func generate(dir string, all []generated) error {
	for i, g := range all {
		path := filepath.Join(dir, filepath.FromSlash(g.name)+".tar.gz")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := g.write(path, uint64(i)+uint64(len(g.name))<<32); err != nil {
			return fmt.Errorf("making layer %s: %w", g.name, err)
		}
	}
	return nil
}

func (g generated) write(path string, seed uint64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	gz, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return err
	}
	w := tar.NewWriter(gz)
	return errors.Join(g.fill(w, seed), w.Close(), gz.Close())
}

func (g generated) fill(w *tar.Writer, seed uint64) error {
	modified := time.Unix(1_700_000_000+int64(seed%1000), 0)
	for _, dir := range g.dirs {
		h := &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: modified}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
	}
	var key [32]byte
	copy(key[:], g.name)
	random := rand.NewChaCha8(key)
	data := make([]byte, g.size)
	for i := range g.files {
		// Half of it compresses.
		if _, err := io.ReadFull(random, data[:g.size/2]); err != nil {
			return err
		}
		name := path.Join(g.dirs[i%len(g.dirs)], fmt.Sprintf("%s-%05d", path.Base(g.name), i))
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: modified, Size: int64(len(data))}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return nil
}
