// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"
)

// Keys are short, since there are several for each snapshot, and in the order in which
// they are made, where that is possible: then a transaction changes a few pages at the
// end of each bucket, and pages stay full.

// u64 is a number in 8 bytes.
func u64(n uint64) []byte {
	return binary.BigEndian.AppendUint64(nil, n)
}

// appendNumber writes how many bytes a number takes and those, so that keys are in the
// order of numbers, and none is the beginning of another.
func appendNumber(b []byte, n uint64) []byte {
	size := (bits.Len64(n) + 7) / 8
	b = append(b, byte(size))
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

// cutNumber reads what appendNumber wrote, and gives what comes after it.
func cutNumber(b []byte) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 || b[0] > 8 || len(b) <= int(b[0]) {
		return 0, nil, false
	}
	size := int(b[0])
	for _, c := range b[1 : 1+size] {
		n = n<<8 | uint64(c)
	}
	return n, b[1+size:], true
}

// numberKey is a number as keys and values have it.
func numberKey(n uint64) []byte { return appendNumber(make([]byte, 0, 9), n) }

// numberOf reads what numberKey made; 0, which is no number of anything, stands for
// what it did not make.
func numberOf(b []byte) uint64 {
	n, rest, ok := cutNumber(b)
	if !ok || len(rest) != 0 {
		return 0
	}
	return n
}

func pair(a, b uint64) []byte {
	return appendNumber(appendNumber(make([]byte, 0, 18), a), b)
}

// second returns the second half of a pair key.
func second(k []byte) uint64 {
	_, rest, _ := cutNumber(k)
	return numberOf(rest)
}

const (
	namePacked  = 1 // namespace, number, string: what containerd's metadata makes of a name
	nameEscaped = 2 // the name, which would begin with one of these bytes
)

// nameKey packs a name. Those that containerd's metadata gives have the form
// NAMESPACE/NUMBER/NAME, and the number grows: as a number, and not as text, it keeps
// new names together at the end.
func nameKey(name string) []byte {
	if ns, n, rest, ok := cutName(name); ok {
		b := make([]byte, 0, 64)
		b = append(b, namePacked)
		b = binary.AppendUvarint(b, uint64(len(ns)))
		b = append(b, ns...)
		b = appendNumber(b, n)
		if b = appendString(b, rest); len(b) < len(name) {
			return b
		}
	}
	if name != "" && name[0] <= nameEscaped {
		return append([]byte{nameEscaped}, name...)
	}
	return []byte(name)
}

// cutName only says ok where putting the parts together gives the name again.
func cutName(name string) (ns string, n uint64, rest string, ok bool) {
	ns, tail, ok := strings.Cut(name, "/")
	if !ok {
		return "", 0, "", false
	}
	digits, rest, ok := strings.Cut(tail, "/")
	if !ok {
		return "", 0, "", false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return ns, n, rest, err == nil && strconv.FormatUint(n, 10) == digits
}
