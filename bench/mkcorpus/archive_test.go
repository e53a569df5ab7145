// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"testing"
)

// Every entry's directory has an entry of its own, earlier: what containerd makes of
// one without is not what both sides are compared by.
func TestLayersNameTheirDirectories(t *testing.T) {
	f := files{sources: [][]byte{[]byte("package a\n")}, binaries: [][]byte{make([]byte, 1<<20)}}
	for _, l := range layers(f) {
		file := filepath.Join(t.TempDir(), "layer.tar")
		must(t, write(file, l.make))
		seen := map[string]bool{".": true}
		for _, h := range read(t, file+".gz") {
			name := path.Clean(h.Name)
			if !seen[path.Dir(name)] {
				t.Errorf("layer %s: %s comes before its directory", l.name, name)
			}
			if seen[name] {
				t.Errorf("layer %s: %s twice", l.name, name)
			}
			seen[name] = true
		}
	}
}

func read(t *testing.T, file string) (headers []*tar.Header) {
	t.Helper()
	r, err := os.Open(file)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	gz, err := gzip.NewReader(r)
	must(t, err)
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return headers
		}
		must(t, err)
		headers = append(headers, h)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
