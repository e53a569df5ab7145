// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"encoding/binary"
	"fmt"
	"path"

	"github.com/containerd/errdefs"
)

// The order of a layer's entries, see Needs.Order. A version, and for each entry: its kind,
// how many bytes its path has in common with the one before, and the rest of it; after a
// hard link that of its target, whole. Numbers are varints (encoding/binary), and the
// lengths of what follows.
const orderVersion = 1

// Kinds of entries.
const (
	orderEntry  = 'e' // what the layer's directory has there
	orderLink   = 'l' // a hard link
	orderMarker = 'm' // a whiteout or an opaque marker
)

// maxOrder is how long an order gets, in bytes: it is kept in memory while any layer is
// extracted, and in layer.json. That is some ten thousand entries.
const maxOrder = 256 << 10

// orderWriter notes entries as they come. It gives up where there are too many, or where
// the directory does not hold what the entries brought.
type orderWriter struct {
	b       []byte
	last    string
	givenUp bool
}

func (o *orderWriter) giveUp() { o.b, o.givenUp = nil, true }

func (o *orderWriter) add(kind byte, at, link string) {
	if o.givenUp {
		return
	}
	if len(o.b) == 0 {
		o.b = append(o.b, orderVersion)
	}
	common := 0
	for common < min(len(at), len(o.last)) && at[common] == o.last[common] {
		common++
	}
	o.b = append(o.b, kind)
	o.b = binary.AppendUvarint(o.b, uint64(common))
	o.b = appendOrdered(o.b, at[common:])
	if kind == orderLink {
		o.b = appendOrdered(o.b, link)
	}
	o.last = at
	if len(o.b) > maxOrder {
		o.giveUp()
	}
}

func appendOrdered(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// ordered is an entry of an order.
type ordered struct {
	kind       byte
	path, link string
}

// orderReader reads what orderWriter wrote.
type orderReader struct {
	b    []byte
	last string
	bad  bool
}

// newOrderReader fails with ErrFailedPrecondition if a newer Strata wrote the order, and
// with ErrDataLoss if it is none.
func newOrderReader(b []byte) (*orderReader, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("the order of the layer's entries is not known: %w", errdefs.ErrDataLoss)
	}
	if b[0] != orderVersion {
		return nil, fmt.Errorf("the order of the layer's entries has version %d: use the newer Strata that wrote it: %w", b[0], errdefs.ErrFailedPrecondition)
	}
	return &orderReader{b: b[1:]}, nil
}

// next returns false at the end.
func (r *orderReader) next() (e ordered, ok bool, err error) {
	if len(r.b) == 0 {
		return e, false, nil
	}
	e.kind = r.b[0]
	r.b = r.b[1:]
	common := r.uvarint()
	if common > uint64(len(r.last)) {
		r.bad, common = true, 0
	}
	e.path = r.last[:common] + r.string()
	if e.kind == orderLink {
		e.link = r.string()
	}
	r.last = e.path
	// Orders of additional stores are others' work: a path leads nowhere but into the layer.
	if r.bad || e.path == "" || path.Clean("/" + e.path)[1:] != e.path || e.kind != orderEntry && e.kind != orderLink && e.kind != orderMarker {
		return e, false, fmt.Errorf("the order of the layer's entries makes no sense: %w", errdefs.ErrDataLoss)
	}
	return e, true, nil
}

func (r *orderReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *orderReader) string() string {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
