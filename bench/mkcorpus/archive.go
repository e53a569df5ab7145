// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"
)

// epoch is the modification time of every entry: a corpus is the same every time.
var epoch = time.Unix(1_700_000_000, 0).UTC()

// archive writes a layer's entries, and keeps the first error for the end.
type archive struct {
	w   *tar.Writer
	err error
}

// write makes path.gz and path.zst, compressed as registries have their layers: gzip
// -6 and zstd -3.
func write(path string, fill func(*archive)) (err error) {
	gzFile, err := os.Create(path + ".gz")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gzFile.Close()) }()
	zstFile, err := os.Create(path + ".zst")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, zstFile.Close()) }()
	gz, err := gzip.NewWriterLevel(gzFile, 6)
	if err != nil {
		return err
	}
	zst, err := zstd.NewWriter(zstFile, zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return err
	}
	a := &archive{w: tar.NewWriter(io.MultiWriter(gz, zst))}
	fill(a)
	return errors.Join(a.err, a.w.Close(), gz.Close(), zst.Close())
}

func (a *archive) add(h tar.Header, data []byte) {
	if a.err != nil {
		return
	}
	h.ModTime, h.Size = epoch, int64(len(data))
	if a.err = a.w.WriteHeader(&h); a.err == nil {
		_, a.err = a.w.Write(data)
	}
}

func (a *archive) dir(name string) {
	a.add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}, nil)
}

func (a *archive) file(name string, mode int64, data []byte) {
	a.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, data)
}

func (a *archive) symlink(name, target string) {
	a.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

func (a *archive) link(name, target string) {
	a.add(tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, Mode: 0o755}, nil)
}
