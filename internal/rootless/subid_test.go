// SPDX-License-Identifier: Apache-2.0

package rootless

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestMap(t *testing.T) {
	own := Range{0, 1000, 1}
	for _, tc := range []struct {
		name, file string
		want       []Range
	}{
		{"by name", "me:100000:65536\n", []Range{own, {1, 100000, 65536}}},
		{"by number", "1000:100000:65536", []Range{own, {1, 100000, 65536}}},
		{"several, in order", "me:300000:10\nme:100000:5\n", []Range{own, {1, 300000, 10}, {11, 100000, 5}}},
		{"among others", "you:5:6\nme:100000:7\nthey:1:2\n", []Range{own, {1, 100000, 7}}},
		{"what makes no sense", "me\nme:x:1\nme:1\nme:1:2:3\nme:-1:2\nme:100000:7\n#me:1:1\n", []Range{own, {1, 100000, 7}}},
		{"nothing", "me:100000:0\nme:200000:1\n", []Range{own, {1, 200000, 1}}},
		{"the user's own", "me:900:200\nme:100000:7\n", []Range{own, {1, 100000, 7}}},
		{"twice", "me:100000:10\nme:100005:10\n", []Range{own, {1, 100000, 10}}},
		{"too many", "me:4294967000:4294967295\n", []Range{own, {1, 4294967000, 295}}},
		{"a number too large", "me:4294967295:1\nme:99999999999:1\nme:5:1\n", []Range{own, {1, 5, 1}}},
		{"all", "me:2000:99999999999999999999\n", []Range{own, {1, 2000, math.MaxUint32 - 2000}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Map(strings.NewReader(tc.file), 1000, "me", "1000")
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("%v, %v, want %v", got, err, tc.want)
			}
		})
	}
}

func TestMapNothing(t *testing.T) {
	for _, file := range []string{"", "you:1:2\n", "me:1000:1\n", "me2:1:2\n"} {
		if _, err := Map(strings.NewReader(file), 1000, "me", "1000"); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%q: %v", file, err)
		}
	}
}

// Whatever the file says, the map is one that the kernel takes.
func FuzzMap(f *testing.F) {
	for _, seed := range []string{"me:100000:65536\n", "me:1:4294967295\nme:5:5", "me:4294967294:1", "1000:0:1000\n", "me:::\n"} {
		f.Add(seed, uint32(1000))
	}
	f.Fuzz(func(t *testing.T, file string, own uint32) {
		ranges, err := Map(strings.NewReader(file), own, "me", "1000")
		if err != nil || uint64(own) >= idSpace {
			return
		}
		if len(ranges) > maxRanges || ranges[0] != (Range{0, own, 1}) {
			t.Fatalf("map %v", ranges)
		}
		next := uint64(0)
		for i, r := range ranges {
			if uint64(r.Inside) != next || r.Count == 0 || next+uint64(r.Count) > idSpace || uint64(r.Outside)+uint64(r.Count) > idSpace {
				t.Fatalf("range %d of %v", i, ranges)
			}
			next += uint64(r.Count)
			for _, other := range ranges[:i] {
				if r.Outside < other.Outside+other.Count && other.Outside < r.Outside+r.Count {
					t.Fatalf("ranges %v and %v overlap", other, r)
				}
			}
		}
	})
}
