// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

const diffBufSize = 256 << 10

// diffWriter writes the tar: entries into a buffer, the buffer into w and a hash.
type diffWriter struct {
	ctx     context.Context
	tar     *tar.Writer
	buf     *bufio.Writer
	sum     hash.Hash
	size    int64
	entries int64
	latest  *time.Time
	chunk   []byte
	zeros   []byte
}

func newDiffWriter(ctx context.Context, w io.Writer, latest *time.Time) *diffWriter {
	out := &diffWriter{ctx: ctx, sum: sha256.New(), chunk: make([]byte, diffBufSize), zeros: make([]byte, 64<<10)}
	if latest != nil {
		whole := latest.Truncate(time.Second)
		out.latest = &whole
	}
	out.buf = bufio.NewWriterSize(&diffTee{w: w, out: out}, diffBufSize)
	out.tar = tar.NewWriter(out.buf)
	return out
}

// diffTee hashes what it writes meanwhile: the writer compresses, most of the time.
type diffTee struct {
	w   io.Writer
	out *diffWriter
}

func (t *diffTee) Write(b []byte) (int, error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = t.out.sum.Write(b) // a hash takes everything
	}()
	n, err := t.w.Write(b)
	<-done
	t.out.size += int64(n)
	return n, err
}

func (out *diffWriter) finish() (DiffResult, error) {
	if err := out.tar.Close(); err != nil {
		return DiffResult{}, fmt.Errorf("finish the layer: %w", err)
	}
	if err := out.buf.Flush(); err != nil {
		return DiffResult{}, fmt.Errorf("write the layer: %w", err)
	}
	id := digest.NewDigest(digest.SHA256, out.sum)
	return DiffResult{DiffID: id, Size: out.size, Entries: out.entries}, nil
}

// entry writes a header. What is not ASCII, long, large or finer than a second
// goes into PAX records, which every applier reads.
func (out *diffWriter) entry(h *tar.Header) error {
	h.Format = tar.FormatPAX
	if out.latest != nil && h.ModTime.After(*out.latest) {
		h.ModTime = *out.latest
	}
	if err := out.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("write the entry %q: %w", h.Name, err)
	}
	out.entries++
	return nil
}

// marker writes an empty file that means something by its name. Its time is zero
// whatever the epoch is: containerd does so, and there is none that would be true.
func (out *diffWriter) marker(dir, base string) error {
	return out.entry(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     joinLayer(dir, base),
		ModTime:  time.Unix(0, 0),
	})
}

func (out *diffWriter) whiteout(dir, name string) error {
	return out.marker(dir, overlayutil.WhiteoutPrefix+name)
}

func joinLayer(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// header makes the header of an entry, without content.
func (e *diffEntry) header() (*tar.Header, error) {
	h := &tar.Header{
		Name:    e.path,
		Mode:    int64(e.st.Mode & 0o7777),
		Uid:     int(e.st.Uid),
		Gid:     int(e.st.Gid),
		ModTime: time.Unix(e.st.Mtim.Unix()),
	}
	for name, value := range e.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	return h, e.describe(h)
}

// describe sets what depends on the kind of file.
func (e *diffEntry) describe(h *tar.Header) (err error) {
	switch e.kind() {
	case unix.S_IFREG:
		h.Typeflag = tar.TypeReg
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		h.Linkname, err = e.readlink()
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
		if e.kind() == unix.S_IFCHR {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = int64(unix.Major(e.st.Rdev)), int64(unix.Minor(e.st.Rdev))
	default:
		return unsure(e.path, "is a kind of file that a layer can't have (mode %#o)", e.st.Mode)
	}
	return err
}

// content writes the first size bytes of a file: what the header promises, also
// when the file has grown since. Holes are not read. The caller names the file
// that shrank.
func (out *diffWriter) content(e *diffEntry, size int64) error {
	sparse := e.st.Blocks*512 < size
	for offset := int64(0); offset < size; {
		data, hole := offset, size
		if sparse {
			var err error
			if data, hole, err = e.nextData(offset, size); err != nil {
				return err
			}
		}
		if err := out.zero(data - offset); err != nil {
			return err
		}
		if err := out.copy(e, data, hole); err != nil {
			return err
		}
		offset = hole
	}
	return nil
}

// nextData returns where the next data at or after an offset begins and ends. A
// file that ends before size is taken for data to the end: reading it tells.
func (e *diffEntry) nextData(offset, size int64) (data, hole int64, err error) {
	data, err = unix.Seek(e.fd, offset, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return e.lastHole(offset, size)
	case errors.Is(err, unix.EINVAL):
		return offset, size, nil
	case err != nil:
		return 0, 0, diffError(e.path, "look for data in", err)
	case data >= size:
		return size, size, nil
	}
	hole, err = unix.Seek(e.fd, data, unix.SEEK_HOLE)
	if err != nil {
		return data, size, nil
	}
	return data, min(hole, size), nil
}

// lastHole tells a hole at the end of a file from a file that has shrunk.
func (e *diffEntry) lastHole(offset, size int64) (data, hole int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(e.fd, &st); err != nil {
		return 0, 0, diffError(e.path, "stat", err)
	}
	if st.Size < size {
		return offset, size, nil
	}
	return size, size, nil
}

func (out *diffWriter) zero(n int64) error {
	for n > 0 {
		some := min(n, int64(len(out.zeros)))
		if err := out.write(out.zeros[:some]); err != nil {
			return err
		}
		n -= some
	}
	return nil
}

func (out *diffWriter) copy(e *diffEntry, from, to int64) error {
	for from < to {
		chunk := out.chunk[:min(to-from, int64(len(out.chunk)))]
		n, err := e.readAt(chunk, from)
		if err != nil {
			return err
		}
		if n < len(chunk) {
			return errChanged(e.path)
		}
		if err := out.write(chunk); err != nil {
			return err
		}
		from += int64(n)
	}
	return nil
}

func (out *diffWriter) write(b []byte) error {
	if err := out.ctx.Err(); err != nil {
		return fmt.Errorf("write the layer: %w", err)
	}
	if _, err := out.tar.Write(b); err != nil {
		return fmt.Errorf("write the layer: %w", err)
	}
	return nil
}
