// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestLowers(t *testing.T) {
	a, b, c := Layer{Path: "/l/a"}, Layer{Path: "/l/b"}, Layer{Path: "/l/c"}
	empty := Layer{Path: "/l/e", Empty: true}
	cut := Layer{Path: "/l/o", OpaqueRoot: true}
	emptyCut := Layer{Path: "/l/eo", Empty: true, OpaqueRoot: true}
	for _, tc := range []struct {
		name string
		in   []Layer
		want []string
	}{
		{"nothing", nil, nil},
		{"order kept", []Layer{c, a, b}, []string{"/l/c", "/l/a", "/l/b"}},
		{"topmost duplicate kept", []Layer{a, b, a, c, b}, []string{"/l/a", "/l/b", "/l/c"}},
		{"empty left out", []Layer{empty, a, empty}, []string{"/l/a"}},
		{"only empty", []Layer{empty, empty}, nil},
		{"cut below an opaque root", []Layer{a, cut, b, c}, []string{"/l/a", "/l/o"}},
		{"cut at an empty opaque root", []Layer{a, emptyCut, b}, []string{"/l/a"}},
		{"cut at a duplicate", []Layer{cut, a}, []string{"/l/o"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Lowers(tc.in); !slices.Equal(got, tc.want) {
				t.Fatalf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// layersGen draws chains with duplicates, empty layers and opaque roots. What a
// layer is depends on its path alone, as for real directories.
func layersGen() *rapid.Generator[[]Layer] {
	return rapid.Map(rapid.SliceOfN(rapid.IntRange(0, 11), 0, 30), func(ids []int) []Layer {
		layers := make([]Layer, len(ids))
		for i, id := range ids {
			layers[i] = Layer{Path: fmt.Sprintf("/l/%d", id), Empty: id == 3 || id == 11, OpaqueRoot: id >= 10}
		}
		return layers
	})
}

func TestLowersProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		layers := layersGen().Draw(t, "layers")
		got := Lowers(layers)

		var again []Layer
		first := -1
		for _, path := range got {
			at := slices.IndexFunc(layers, func(l Layer) bool { return l.Path == path })
			if at <= first {
				t.Fatalf("%s is not at the place of its topmost occurrence: %v", path, got)
			}
			if layers[at].Empty {
				t.Fatalf("empty layer %s in %v", path, got)
			}
			if slices.ContainsFunc(layers[:at], func(l Layer) bool { return l.OpaqueRoot }) {
				t.Fatalf("%s is below an opaque root", path)
			}
			first = at
			again = append(again, layers[at])
		}
		if twice := Lowers(again); !slices.Equal(twice, got) {
			t.Fatalf("not idempotent: %v, then %v", got, twice)
		}
	})
}
