// SPDX-License-Identifier: Apache-2.0

package metadata

import "bytes"

// What the checker knows of the form of keys is here, and nowhere else.

func indexKey(n uint64) []byte { return numberKey(n) }

func indexName(name string) []byte { return nameKey(name) }

// readNumber reads the key or value of a number, in the one form that is written.
func readNumber(b []byte) (uint64, bool) {
	n := numberOf(b)
	return n, n != 0 && bytes.Equal(numberKey(n), b)
}

// link is a key of two numbers.
type link struct{ a, b uint64 }

func (l link) key() []byte { return pair(l.a, l.b) }

func readLink(k []byte) (link, bool) {
	a, _, ok := cutNumber(k)
	if !ok {
		return link{}, false
	}
	l := link{a, second(k)}
	return l, l.b != 0 && bytes.Equal(l.key(), k)
}
