// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"cmp"
	"testing"

	"pgregory.net/rapid"
)

func TestNumberKeysKeepTheOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := rapid.Uint64().Draw(rt, "a"), rapid.Uint64().Draw(rt, "b")
		if numberOf(numberKey(a)) != a || second(pair(b, a)) != a {
			rt.Fatalf("%d became %d, and %d in a pair", a, numberOf(numberKey(a)), second(pair(b, a)))
		}
		if bytes.Compare(numberKey(a), numberKey(b)) != cmp.Compare(a, b) {
			rt.Fatalf("the keys of %d and %d are in another order", a, b)
		}
		if a != b && bytes.HasPrefix(pair(b, a), numberKey(a)) {
			rt.Fatalf("the pair of %d and %d is found as one of %d", b, a, a)
		}
	})
}

func TestNoNumber(t *testing.T) {
	for _, k := range [][]byte{nil, {}, {1}, {3, 1, 1}, {1, 1, 1}, {9, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {255}} {
		if n := numberOf(k); n != 0 {
			t.Errorf("%x is %d", k, n)
		}
	}
}

// anyName makes names in the form that containerd gives them, or nearly.
func anyName() *rapid.Generator[string] {
	part := rapid.SampledFrom([]string{"", "/", "k8s.io", "0", "1", "01", "12", "18446744073709551616", "\x00", "\x01", "\x02", "sha256:" + hexDigits})
	return rapid.Custom(func(t *rapid.T) string {
		var name string
		for _, p := range rapid.SliceOfN(part, 1, 7).Draw(t, "parts") {
			name += p
		}
		return name
	})
}

func TestNameKeysAreDifferent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := rapid.OneOf(anyName(), anyString()).Draw(rt, "a")
		b := rapid.OneOf(anyName(), anyString()).Draw(rt, "b")
		if a != b && bytes.Equal(nameKey(a), nameKey(b)) {
			rt.Fatalf("%q and %q have the same key", a, b)
		}
		// Nor is the key of one the other as it is.
		if packed := string(nameKey(a)); packed != a && bytes.Equal(nameKey(packed), nameKey(a)) {
			rt.Fatalf("the key of %q is its own", a)
		}
	})
}

func TestNamesComeInTheirOrder(t *testing.T) {
	last := nameKey("k8s.io/9/sha256:" + hexDigits)
	for _, name := range []string{"k8s.io/10/extract-1-x sha256:" + hexDigits, "k8s.io/11/sha256:" + hexDigits, "k8s.io/100/sha256:" + hexDigits} {
		k := nameKey(name)
		if bytes.Compare(last, k) >= 0 {
			t.Errorf("%q does not come last", name)
		}
		if len(k) > 64 {
			t.Errorf("%q takes %d bytes", name, len(k))
		}
		last = k
	}
}
