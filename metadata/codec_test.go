// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

const hexDigits = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func anyString() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.String(),
		rapid.SampledFrom(knownStrings),
		rapid.SampledFrom([]string{
			"", "sha256:", "sha256:" + hexDigits, "default/12/sha256:" + hexDigits,
			"sha256:" + strings.ToUpper(hexDigits), "sha256:" + hexDigits[1:] + "g", "sha512:" + hexDigits,
		}),
	)
}

func TestStringRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := anyString().Draw(rt, "s")
		d := &decoder{b: appendString(nil, s)}
		if got := d.string(); got != s || d.finish() != nil {
			rt.Fatalf("%q became %q (%v)", s, got, d.err)
		}
	})
}

func TestDigestsArePacked(t *testing.T) {
	if n := len(appendString(nil, "default/12/sha256:"+hexDigits)); n > 48 {
		t.Errorf("a name with a digest takes %d bytes", n)
	}
}

// An extracted layer's name ends in its chainID, as do the labels that name it.
func TestSameDigestIsKeptOnce(t *testing.T) {
	chainID := "sha256:" + hexDigits
	r := &record{name: "default/12/" + chainID, kind: snapshots.KindCommitted}
	without := len(r.encode())
	r.labels = map[string]string{snapshots.LabelSnapshotRef: chainID}
	if more := len(r.encode()) - without; more > 2 {
		t.Errorf("the label takes %d bytes", more)
	}
	got, err := decodeRecord(r.encode())
	if err != nil || got.labels[snapshots.LabelSnapshotRef] != chainID {
		t.Errorf("the label became %v (%v)", got, err)
	}
}

// A string that refers to the digest of a name says nothing where there is none.
func TestSameAsNothing(t *testing.T) {
	d := &decoder{b: []byte{0<<strTagBits | strSame}}
	if s := d.string(); s != "" || !errdefs.IsDataLoss(d.finish()) {
		t.Errorf("it is %q, %v", s, d.err)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		created := rapid.Int64Range(0, 1<<62).Draw(rt, "created")
		r := &record{
			name:    anyString().Draw(rt, "name"),
			kind:    rapid.SampledFrom([]snapshots.Kind{snapshots.KindActive, snapshots.KindView, snapshots.KindCommitted}).Draw(rt, "kind"),
			parent:  rapid.Uint64().Draw(rt, "parent"),
			layer:   rapid.Uint64().Draw(rt, "layer"),
			patch:   rapid.Uint64().Draw(rt, "patch"),
			usage:   snapshots.Usage{Size: rapid.Int64().Draw(rt, "size"), Inodes: rapid.Int64().Draw(rt, "inodes")},
			created: timeOf(created),
			updated: timeOf(created + rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "later")),
			labels:  rapid.MapOf(anyString(), anyString()).Draw(rt, "labels"),
		}
		if len(r.labels) == 0 {
			r.labels = nil
		}
		got, err := decodeRecord(r.encode())
		if err != nil || !reflect.DeepEqual(got, r) {
			rt.Fatalf("%+v became %+v (%v)", r, got, err)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	r := &record{name: "default/1/sha256:" + hexDigits, kind: snapshots.KindCommitted, created: now(), updated: now(), labels: map[string]string{"a": "b"}}
	f.Add(r.encode())
	f.Add([]byte{})
	f.Add([]byte{1, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			if !errdefs.IsDataLoss(err) {
				t.Errorf("%v is no data loss", err)
			}
			return
		}
		again, err := decodeRecord(r.encode())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v became %+v (%v)", r, again, err)
		}
	})
}

func FuzzDecodeLayer(f *testing.F) {
	l := Layer{Number: 3, DiffID: digest.FromString("x"), Empty: true, Usage: snapshots.Usage{Size: 1, Inodes: 2}, Created: now()}
	f.Add(l.encode())
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLayer(3, b)
		if err != nil {
			if !errdefs.IsDataLoss(err) {
				t.Errorf("%v is no data loss", err)
			}
			return
		}
		if again, err := decodeLayer(3, l.encode()); err != nil || again != l {
			t.Errorf("%+v became %+v (%v)", l, again, err)
		}
	})
}
