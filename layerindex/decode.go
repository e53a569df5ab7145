// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/containerd/errdefs"
)

// damaged is an index that can't be believed: DataLoss.
func damaged(format string, args ...any) error {
	return fmt.Errorf("index: "+format+": %w", append(args, errdefs.ErrDataLoss)...)
}

// decoder reads the records of one block. The first thing that makes no sense ends it.
type decoder struct {
	b      []byte
	before string
	err    error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err, d.b = damaged("a record has no %s that makes sense", what), nil
	}
}

func (d *decoder) uvarint(what string, most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > most {
		d.fail(what)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) number(what string) uint32 { return uint32(d.uvarint(what, math.MaxUint32)) }

func (d *decoder) sum(what string) uint64 {
	if len(d.b) < 8 {
		d.fail(what)
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) bytes(what string) []byte {
	n := d.uvarint(what, uint64(len(d.b)))
	if n > uint64(len(d.b)) { // the length itself took some
		d.fail(what)
		return nil
	}
	s := d.b[:n]
	d.b = d.b[n:]
	return s
}

// record reads the next record into r, whose slice of attributes it uses again.
func (d *decoder) record(r *Record) error {
	*r = Record{Xattrs: r.Xattrs[:0]}
	kind := byte(d.uvarint("type", math.MaxUint8))
	r.Type, r.Sparse = Type(kind&typeMask), kind&flagSparse != 0
	if r.Type < Regular || r.Type > Link || kind&^(typeMask|flagSparse|flagXattrs) != 0 {
		d.fail("type")
	}
	r.Path = d.path()
	if r.Type.hasAttrs() {
		d.attrs(r)
	}
	switch r.Type {
	case Regular:
		r.Size = int64(d.uvarint("size", math.MaxInt64))
		r.Sum = d.sum("checksum")
	case Symlink, Link:
		r.Link = string(d.bytes("target"))
	case Char, Block:
		r.Major, r.Minor = d.number("device"), d.number("device")
	default: // there is no more to say of the others
	}
	if kind&flagXattrs != 0 {
		d.xattrs(r)
	}
	return d.err
}

func (d *decoder) path() string {
	n := d.uvarint("path", uint64(len(d.before)))
	rest := d.bytes("path")
	if d.err != nil {
		return ""
	}
	path := d.before[:n] + string(rest)
	if !clean(path) {
		d.fail("path")
	}
	d.before = path
	return path
}

// clean says whether path can be that of an entry: what opens it relies on that.
func clean(path string) bool {
	if path == "" {
		return true
	}
	if strings.IndexByte(path, 0) >= 0 {
		return false
	}
	for base := range strings.SplitSeq(path, "/") {
		if base == "" || base == "." || base == ".." {
			return false
		}
	}
	return true
}

func (d *decoder) attrs(r *Record) {
	r.Mode = uint32(d.uvarint("mode", 0o7777))
	r.UID, r.GID = d.number("owner"), d.number("owner")
	sec, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("time")
		return
	}
	d.b = d.b[n:]
	r.Sec, r.Nsec = sec, int64(d.uvarint("time", 999_999_999))
}

// leastXattr is the least that an attribute takes in a record.
const leastXattr = 1 + 1 + 8

func (d *decoder) xattrs(r *Record) {
	count := d.uvarint("attributes", uint64(len(d.b)/leastXattr))
	for range count {
		name := d.bytes("attribute")
		size := d.uvarint("attribute", math.MaxInt32)
		sum := d.sum("attribute")
		if d.err != nil {
			return
		}
		r.Xattrs = append(r.Xattrs, Xattr{Name: string(name), Size: int(size), Sum: sum})
	}
}
