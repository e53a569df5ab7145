// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"crypto/sha256"
	"encoding/binary"
	"regexp"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// Filters are matched by containerd's pkg/filters, which does not say what it
// parsed. What follows reads just enough of a filter to use an index, and only
// where it understands the whole of it: the snapshots it comes up with are
// still matched, so it may find too many, but never too few.

// selectorRE is one "field==value" at the start of a filter, in the forms that
// are beyond doubt: fields of letters or quoted, values quoted or of characters
// that have no meaning in the syntax.
var selectorRE = regexp.MustCompile(`^([A-Za-z_]+)(?:\.("(?:[^"\\]|\\["\\])*"|[A-Za-z0-9_]+))?(==|!=)("(?:[^"\\]|\\["\\])*"|[A-Za-z0-9_:./@+-]+)(,|$)`)

// wanted are the equalities of one filter that an index can answer.
type wanted struct {
	name, ref, parent *string
}

// parseWanted reads a filter. Not ok: it says something this function does not
// understand, or nothing that an index helps with.
func parseWanted(filter string) (w wanted, ok bool) {
	for filter != "" {
		m := selectorRE.FindStringSubmatch(filter)
		if m == nil {
			return wanted{}, false
		}
		filter = filter[len(m[0]):]
		if filter == "" && m[5] == "," {
			return wanted{}, false // a trailing comma: not for us to judge
		}
		if m[3] == "==" {
			w.note(m[1], unquote(m[2]), unquote(m[4]))
		}
	}
	return w, w.name != nil || w.ref != nil || w.parent != nil
}

func (w *wanted) note(field, sub, value string) {
	switch {
	case value == "":
		// A missing label and an empty parent match too; no index has those.
	case field == "name" && sub == "":
		w.name = &value
	case field == "parent" && sub == "":
		w.parent = &value
	case field == "labels" && sub == snapshots.LabelSnapshotRef:
		w.ref = &value
	}
}

func unquote(s string) string {
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return s
}

// candidates returns the numbers of all snapshots that can match the filters,
// and maybe more, in ascending order. Not ok: the indexes can't tell.
func (tx *Tx) candidates(fs []string) (numbers []uint64, ok bool, err error) {
	if len(fs) == 0 {
		return nil, false, nil
	}
	for _, f := range fs {
		w, ok := parseWanted(f)
		if !ok {
			return nil, false, nil
		}
		more, err := tx.find(w)
		if err != nil {
			return nil, false, err
		}
		numbers = append(numbers, more...)
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), true, nil
}

// find asks the index that names the fewest snapshots.
func (tx *Tx) find(w wanted) (numbers []uint64, err error) {
	collect := func(n uint64) (bool, error) {
		numbers = append(numbers, n)
		return true, nil
	}
	switch {
	case w.name != nil:
		if n := tx.number(*w.name); n != 0 {
			numbers = []uint64{n}
		}
	case w.ref != nil:
		err = tx.seconds(bucketByRef, hashRef(*w.ref), collect)
	case w.parent != nil:
		if n := tx.number(*w.parent); n != 0 {
			err = tx.seconds(bucketChildren, n, collect)
		}
	}
	return numbers, err
}

// hashRef shortens the snapshot.ref label for its index. Two labels with one
// hash only make a look-up find a candidate too many.
func hashRef(ref string) uint64 {
	sum := sha256.Sum256([]byte(ref))
	return uint64(binary.BigEndian.Uint32(sum[:]))
}
