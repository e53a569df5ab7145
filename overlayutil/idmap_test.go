// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// unit maps n single ids, each to a host id of its own.
func unit(n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf("%d:%d:1", i, i*2+1)
	}
	return strings.Join(parts, ",")
}

func TestParseIDMapAccepts(t *testing.T) {
	for _, text := range []string{
		"0:0:1", "0:1000:65536", "0:0:4294967295", "0:4294967294:1",
		"0:1000:1,1:100000:65535", "1:1:10,0:0:1", "0:10:10,10:0:10", unit(maxIDRanges),
	} {
		m, err := ParseIDMap(text, "0:5:1")
		if err != nil {
			t.Errorf("%.60s: %v", text, err)
		} else if m.UIDString() != text || m.GIDString() != "0:5:1" {
			t.Errorf("%.60s comes back as %.60s", text, m.UIDString())
		}
	}
}

var wrongMaps = []string{
	"", ",", "0", "0:0", "0:0:0", "0:0:1:1", "0:0:1,", ",0:0:1", "0:0:1;1:1:1",
	"0:1000:65536,lowerdir=/etc", "0:1000:65536 ", " 0:1000:65536", "0: 1000:1", "0:1000:1\n", "0:1000:1\x00",
	"+0:0:1", "-1:0:1", "0:-1:1", "0:0:-1", "0x0:0:1", "0:1e3:1", "0:1_0:1", "00:0:1", "0:01:1", "0:٣:1",
	"1:0:1", "0:4294967295:1", "4294967295:0:1", "0:0:4294967296", "0:1:4294967295", "0:4294967290:6",
	"0:18446744073709551616:1", "0:0:10,9:100:1", "0:0:10,20:9:1", "0:0:1,0:1:1", unit(maxIDRanges + 1),
	"0:100000:1," + strings.Repeat("1000000000:1000000000:1,", 200) + "5:5:1",
}

func TestParseIDMapRefuses(t *testing.T) {
	for _, text := range wrongMaps {
		if _, err := ParseIDMap(text, "0:0:1"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("uid mapping %.80q: %v", text, err)
		}
		if _, err := ParseIDMap("0:0:1", text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("gid mapping %.80q: %v", text, err)
		}
	}
}

func TestIDMapHost(t *testing.T) {
	m, err := ParseIDMap("0:1000:1,1:100000:65535", "0:2000:10")
	if err != nil {
		t.Fatal(err)
	}
	if uid, gid := m.Root(); uid != 1000 || gid != 2000 {
		t.Fatalf("root is %d:%d", uid, gid)
	}
	if uid, gid, err := m.Host(65535, 9); err != nil || uid != 165534 || gid != 2009 {
		t.Fatalf("%d:%d %v", uid, gid, err)
	}
	for _, id := range [][2]uint32{{65536, 0}, {0, 10}, {4294967295, 0}} {
		if _, _, err := m.Host(id[0], id[1]); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%v: %v", id, err)
		}
	}
}

// idRangesGen draws ranges that are right: laid out one after another on both
// sides with gaps between, the first from container id 0.
func idRangesGen() *rapid.Generator[[]IDRange] {
	return rapid.Custom(func(t *rapid.T) []IDRange {
		var ranges []IDRange
		var container, host uint32
		for i := range rapid.IntRange(1, 20).Draw(t, "ranges") {
			r := IDRange{Size: rapid.Uint32Range(1, 1<<20).Draw(t, "size")}
			if i > 0 {
				r.Container = container + rapid.Uint32Range(0, 1<<20).Draw(t, "gap")
			}
			r.Host = host + rapid.Uint32Range(0, 1<<20).Draw(t, "gap")
			container, host = r.Container+r.Size, r.Host+r.Size
			ranges = append(ranges, r)
		}
		return rapid.Permutation(ranges).Draw(t, "order")
	})
}

func TestIDMapRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := IDMap{idRangesGen().Draw(t, "uids"), idRangesGen().Draw(t, "gids")}
		got, err := ParseIDMap(want.UIDString(), want.GIDString())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.UIDs, want.UIDs) || !slices.Equal(got.GIDs, want.GIDs) {
			t.Fatalf("%v came back as %v", want, got)
		}
		r := rapid.SampledFrom(want.UIDs).Draw(t, "range")
		at := rapid.Uint32Range(0, r.Size-1).Draw(t, "offset")
		if uid, _, err := got.Host(r.Container+at, 0); err != nil || uid != r.Host+at {
			t.Fatalf("%d is %d, %v", r.Container+at, uid, err)
		}
	})
}

// TestIDMapIsWhatTheKernelTakes sets mappings at the limits with containerd's
// own code.
func TestIDMapIsWhatTheKernelTakes(t *testing.T) {
	testutil.RequireRoot(t)
	for _, text := range []string{"0:0:4294967295", "0:4294967294:1", "1:1:10,0:0:1", unit(maxIDRanges)} {
		if _, err := ParseIDMap(text, text); err != nil {
			t.Errorf("%.60s: %v", text, err)
		}
		fd, err := mount.GetUsernsFD(text, text)
		if err != nil {
			t.Errorf("%.60s: the kernel does not take it: %v", text, err)
			continue
		}
		if err := fd.Close(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParseIDMap(f *testing.F) {
	for _, text := range wrongMaps {
		f.Add(text, "0:0:1")
	}
	f.Add("0:1000:65536,lowerdir=/etc", "0:1000:65536")
	f.Add("0:1000:1,1:100000:65535", "0:0:4294967295")
	f.Fuzz(func(t *testing.T, uid, gid string) {
		m, err := ParseIDMap(uid, gid)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Fatalf("wrong class: %v", err)
			}
			return
		}
		if m.UIDString() != uid || m.GIDString() != gid {
			t.Fatalf("%q %q were read as %q %q", uid, gid, m.UIDString(), m.GIDString())
		}
		if strings.Trim(uid+gid, "0123456789:,") != "" {
			t.Fatalf("accepted %q %q", uid, gid)
		}
		if _, _, err := m.Host(0, 0); err != nil {
			t.Fatalf("root is not mapped: %v", err)
		}
	})
}
