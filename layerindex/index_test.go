// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

// drawRecord draws a record as a Reader gives it: what a type does not have is zero.
func drawRecord(t *rapid.T, path string) Record {
	r := Record{Path: path, Type: Type(rapid.IntRange(int(Regular), int(Link)).Draw(t, "type"))}
	text := rapid.StringN(0, 20, 40)
	if r.Type.hasAttrs() {
		r.Mode = rapid.Uint32Range(0, 0o7777).Draw(t, "mode")
		r.UID, r.GID = rapid.Uint32().Draw(t, "uid"), rapid.Uint32().Draw(t, "gid")
		r.Sec, r.Nsec = rapid.Int64().Draw(t, "sec"), rapid.Int64Range(0, 999_999_999).Draw(t, "nsec")
		for range rapid.IntRange(0, 3).Draw(t, "xattrs") {
			x := Xattr{Name: text.Draw(t, "name"), Size: rapid.IntRange(0, xattrMax).Draw(t, "size"), Sum: rapid.Uint64().Draw(t, "sum")}
			r.Xattrs = append(r.Xattrs, x)
		}
	}
	switch r.Type {
	case Regular:
		r.Size, r.Sum, r.Sparse = rapid.Int64Min(0).Draw(t, "size"), rapid.Uint64().Draw(t, "sum"), rapid.Bool().Draw(t, "sparse")
	case Symlink, Link:
		r.Link = text.Draw(t, "link")
	case Char, Block:
		r.Major, r.Minor = rapid.Uint32().Draw(t, "major"), rapid.Uint32().Draw(t, "minor")
	default:
	}
	return r
}

func drawRecords(t *rapid.T) []Record {
	names := rapid.SampledFrom([]string{"a", "b", "etc", strings.Repeat("n", 255), strings.Repeat("long/", 3000) + "x", "ü"})
	paths := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(names, 0, 4).Draw(t, "names"), "/")
	}), 0, 30, rapid.ID[string]).Draw(t, "paths")
	var records []Record
	for _, path := range paths {
		records = append(records, drawRecord(t, path))
	}
	return records
}

func write(t interface{ Fatal(...any) }, records, amended []Record) []byte {
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, r := range records {
		if err := w.Add(&r); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range amended {
		if err := w.Amend(&r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readAll(index []byte) (records []Record, err error) {
	r, err := NewReader(bytes.NewReader(index), int64(len(index)))
	if err != nil {
		return nil, err
	}
	var record Record
	for {
		if err := r.Next(&record); errors.Is(err, io.EOF) {
			return records, nil
		} else if err != nil {
			return records, err
		}
		one := record
		one.Xattrs = slices.Clone(record.Xattrs)
		if len(one.Xattrs) == 0 {
			one.Xattrs = nil
		}
		records = append(records, one)
	}
}

func TestReadsWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := drawRecords(t)
		want := slices.Clone(records)
		var amended []Record
		for i, r := range records {
			if rapid.IntRange(0, 4).Draw(t, "amend") > 0 {
				continue
			}
			a := drawRecord(t, r.Path)
			amended = append(amended, a)
			if a.Type == r.Type {
				a.Size, a.Sum, a.Sparse = r.Size, r.Sum, r.Sparse
				want[i] = a
			}
		}
		got, err := readAll(write(t, records, amended))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

// No byte of an index can change, and none can be missing at its end, without being
// noticed; and what was read until then was written.
func TestDamageIsNoticed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := drawRecords(t)
		index := write(t, records, records[:len(records)/3])
		want, err := readAll(index)
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.IntRange(0, len(index)-1).Draw(t, "at")
		bad := slices.Clone(index)
		bad[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		for what, b := range map[string][]byte{"changed": bad, "cut off": index[:at]} {
			got, err := readAll(b)
			if !errdefs.IsDataLoss(err) && !errdefs.IsFailedPrecondition(err) {
				t.Fatalf("%s at %d: %v", what, at, err)
			}
			if what == "changed" && at >= len(magic) && at < len(index)-trailerSize && len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
				t.Fatalf("%s at %d: read %+v", what, at, got)
			}
		}
	})
}

func TestNewerVersionIsNotDamage(t *testing.T) {
	index := write(t, nil, nil)
	index[len(magic)-1]++
	if _, err := readAll(index); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
}

func TestAnUnfinishedIndexIsDamaged(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	for i := range 10_000 {
		if err := w.Add(&Record{Path: strings.Repeat("x", i%200+1), Type: Dir}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readAll(b.Bytes()); b.Len() == 0 || !errdefs.IsDataLoss(err) {
		t.Errorf("%d bytes, %v", b.Len(), err)
	}
}

// failing is a disk that is full after some bytes.
type failing struct{ left int }

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errdefs.ErrResourceExhausted
	}
	return len(b), nil
}

func TestErrorsOfTheDiskComeBack(t *testing.T) {
	for _, left := range []int{0, 10, 70_000} {
		w := NewWriter(&failing{left})
		for i := range 3000 {
			_ = w.Add(&Record{Path: fmt.Sprint(i, strings.Repeat("x", 100)), Type: Dir})
		}
		if err := w.Finish(); !errdefs.IsResourceExhausted(err) {
			t.Errorf("after %d bytes: %v", left, err)
		}
	}
}

func TestTooManyAmendments(t *testing.T) {
	w := NewWriter(io.Discard)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		err = w.Amend(&Record{Path: strings.Repeat("y", i) + strings.Repeat("x", 60_000), Type: Dir})
	}
	if !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
}

// A record costs no allocation, and few bytes.
func TestRecordsAreCheap(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	r := Record{Path: "usr/share/doc/package/copyright", Type: Regular, Mode: 0o644, Sec: 1_700_000_000, Size: 12_345, Sum: 1 << 60}
	const runs = 100_000
	b.Grow(runs * 64)
	if n := testing.AllocsPerRun(runs, func() { _ = w.Add(&r) }); n > 0.01 {
		t.Errorf("%v allocations", n)
	}
	if err := w.Finish(); err != nil || b.Len() > runs*32 {
		t.Errorf("%d bytes for %d records, %v", b.Len(), runs, err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{})
	f.Add(write(f, nil, nil))
	xattrs := []Xattr{{"user.one", 5, 7}, {"trusted.overlay.opaque", 1, 9}}
	f.Add(write(f, []Record{
		{Type: Dir, Mode: 0o755, Sec: -5}, {Path: "a/b", Type: Regular, Size: 5, Sum: 6, Sparse: true, Xattrs: xattrs},
		{Path: "a/c", Type: Link, Link: "a/b"}, {Path: "a/d", Type: Char, Major: 1, Minor: 3}, {Path: "a/e", Type: Whiteout},
	}, []Record{{Path: "a/b", Type: Regular, UID: 7}}))
	f.Fuzz(func(t *testing.T, index []byte) {
		records, err := readAll(index)
		if err != nil && !errdefs.IsDataLoss(err) && !errdefs.IsFailedPrecondition(err) {
			t.Errorf("no class: %v", err)
		}
		for _, r := range records {
			if !clean(r.Path) || r.Size < 0 || r.Nsec < 0 || r.Nsec >= 1e9 {
				t.Errorf("read %+v", r)
			}
		}
	})
}

// The records of a block, whose checksum a fuzzer would not get right.
func FuzzRecords(f *testing.F) {
	f.Add(appendRecord(nil, "", &Record{Path: "a", Type: Regular, Xattrs: []Xattr{{"user.one", 5, 7}}}), "")
	f.Add(appendRecord(nil, "a/b", &Record{Path: "a/c", Type: Symlink, Link: "b"}), "a/b")
	f.Fuzz(func(t *testing.T, b []byte, before string) {
		d := decoder{b: b, before: before}
		for len(d.b) > 0 {
			left := len(d.b)
			var r Record
			if err := d.record(&r); err != nil {
				if !errdefs.IsDataLoss(err) {
					t.Errorf("no class: %v", err)
				}
				return
			}
			if !clean(r.Path) || len(d.b) >= left {
				t.Errorf("read %+v", r)
			}
		}
	})
}
