// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// readAll reads a tar with our reader: a line for each entry and what it holds.
func readAll(data []byte) (lines []string, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := newStream(ctx, FromReader(bytes.NewReader(data)))
	defer s.close()
	defer cancel()
	t := newTarReader(s, DefaultLimits())
	for {
		e, err := t.next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		if e.stored > int64(len(data)) || e.size > maxTestFile {
			return lines, t.cut(io.ErrUnexpectedEOF)
		}
		content := make([]byte, e.stored)
		if err := s.full(content); err != nil && e.stored > 0 {
			return lines, t.cut(err)
		}
		if e.segments != nil {
			full := make([]byte, e.size)
			for _, seg := range e.segments {
				n := copy(full[seg.offset:seg.offset+seg.length], content)
				content = content[n:]
			}
			content = full
		}
		lines = append(lines, line(e, content))
	}
}

func line(e *entry, content []byte) string {
	var xattrs []string
	for _, x := range e.xattrs {
		xattrs = append(xattrs, x.key+"="+string(x.value))
	}
	return fmt.Sprintf("%c %q→%q %o %d:%d %d %d.%09d %d,%d %q %x", e.typ, e.name, e.link, e.mode, e.uid, e.gid,
		e.size, e.mtime.sec, e.mtime.nsec, e.major, e.minor, xattrs, content)
}

// maxTestFile keeps the fuzzer from filling memory with holes.
const maxTestFile = 1 << 20

// readOther reads a tar with the standard library, in the same form.
func readOther(data []byte) (lines []string, err error) {
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		content, err := io.ReadAll(io.LimitReader(tr, maxTestFile+1))
		if err != nil {
			return lines, err
		}
		e := &entry{
			typ: h.Typeflag, name: h.Name, link: h.Linkname, mode: uint32(h.Mode) & 0o7777, uid: uint32(h.Uid), gid: uint32(h.Gid),
			size: h.Size, mtime: stamp{h.ModTime.Unix(), int64(h.ModTime.Nanosecond())}, major: uint32(h.Devmajor), minor: uint32(h.Devminor),
		}
		if !e.isDevice() {
			e.major, e.minor = 0, 0
		}
		if !hasContent(e.typ) {
			e.size = 0
		}
		if e.typ == tar.TypeGNUSparse || e.typ == typeCont {
			e.typ = typeRegular
		}
		for _, key := range sortedKeys(h.PAXRecords) {
			if name, ok := strings.CutPrefix(key, xattrPrefix); ok {
				e.xattrs = append(e.xattrs, xattr{name, []byte(h.PAXRecords[key])})
			}
		}
		lines = append(lines, line(e, content))
	}
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	for i := range keys {
		for j := i; j > 0 && keys[j] < keys[j-1]; j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
		}
	}
	return keys
}

func writeTar(t testing.TB, format tar.Format, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Format = format
		if err := w.WriteHeader(h); err != nil {
			t.Skipf("%v: %v", format, err)
		}
		if h.Size > 0 {
			if _, err := w.Write(bytes.Repeat([]byte{'c'}, int(h.Size))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sampleHeaders(long bool) []*tar.Header {
	at := time.Unix(1_600_000_000, 0)
	name := "file"
	if long {
		name = strings.Repeat("long-name/", 30) + "file"
	}
	return []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "dir/", Mode: 0o1777, ModTime: at, Uid: 1, Gid: 2},
		{Typeflag: tar.TypeReg, Name: name, Mode: 0o4755, Size: 1000, ModTime: at},
		{Typeflag: tar.TypeReg, Name: "empty", Mode: 0o600, ModTime: at},
		{Typeflag: tar.TypeReg, Name: "block", Mode: 0o600, Size: 512, ModTime: at},
		{Typeflag: tar.TypeSymlink, Name: "soft", Linkname: name, Mode: 0o777, ModTime: at},
		{Typeflag: tar.TypeLink, Name: "hard", Linkname: name, ModTime: at},
		{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3, Mode: 0o666, ModTime: at},
		{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8, Devminor: 200, ModTime: at},
		{Typeflag: tar.TypeFifo, Name: "pipe", ModTime: at},
	}
}

func TestTarIsReadAsByTheStandardLibrary(t *testing.T) {
	tars := map[string][]byte{}
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		for _, long := range []bool{false, true} {
			if format == tar.FormatUSTAR && long {
				continue // does not fit
			}
			tars[fmt.Sprint(format, long)] = writeTar(t, format, sampleHeaders(long)...)
		}
	}
	precise := sampleHeaders(false)
	for i, h := range precise {
		h.ModTime = time.Unix(int64(1000*(i-3)), 123_456_789)
		h.Uid, h.Gid = 1<<31, 4_294_967_294
		h.PAXRecords = map[string]string{"SCHILY.xattr.user.key": "a=b\nc", "SCHILY.xattr.user.empty": ""}
	}
	tars["pax, precise"] = writeTar(t, tar.FormatPAX, precise...)
	for name, data := range tars {
		want, err := readOther(data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readAll(data)
		if err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s: %v\ngot\n%s\nwant\n%s", name, err, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestTarCutOffIsRefused(t *testing.T) {
	data := writeTar(t, tar.FormatPAX, sampleHeaders(true)...)
	end := len(data) - 2*blockLen
	for n := 1; n < end; n += 97 {
		_, err := readAll(data[:n])
		_, other := readOther(data[:n])
		if (err == nil) != (other == nil) {
			t.Errorf("cut at %d: %v, the standard library: %v", n, err, other)
		}
		if err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if _, err := readAll(data[:end]); err != nil {
		t.Errorf("without the end mark: %v", err)
	}
}

// Whatever both readers take, they understand alike. Ours refuses more: ids that
// the kernel would cut off, for one.
func FuzzTar(f *testing.F) {
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatPAX, tar.FormatGNU} {
		f.Add(writeTar(f, format, sampleHeaders(false)...))
	}
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readAll(data)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsResourceExhausted(err) {
				t.Errorf("%v has no class", err)
			}
			return
		}
		want, other := readOther(data)
		if other != nil {
			return // the standard library is stricter about what it does not need
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
