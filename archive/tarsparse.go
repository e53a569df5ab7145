// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"strconv"
	"strings"
)

// maxSegments bounds the map of one sparse file.
const maxSegments = 1 << 16

// sparse finds out whether e is a sparse file, in one of the four ways to say
// so, and where its content belongs.
func (t *tarReader) sparse(h header, e *entry, pax *paxRecords) (err error) {
	major, _ := pax.get(sparseBlock + "major")
	minor, _ := pax.get(sparseBlock + "minor")
	_, hasMap := pax.get(sparseBlock + "map")
	_, hasBlocks := pax.get(sparseBlock + "numblocks")
	switch {
	case e.typ == typeSparse:
		err = t.sparseGNU(h, e)
	case e.typ != typeRegular:
		return nil
	case major == "1" && minor == "0":
		err = t.sparse10(e, pax)
	case hasMap || hasBlocks:
		err = sparse0(e, pax)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return e.checkSegments()
}

// checkSegments: in order, apart from each other, within the file, and as long
// as what is stored.
func (e *entry) checkSegments() error {
	var end, total int64
	for _, s := range e.segments {
		if s.offset < end || s.length < 0 || s.offset > e.size || s.length > e.size-s.offset {
			return bad("entry %s: its map of holes makes no sense", quote(e.name))
		}
		end = s.offset + s.length
		total += s.length
	}
	if total != e.stored {
		return bad("entry %s: its map of holes has %d bytes, the archive %d", quote(e.name), total, e.stored)
	}
	if e.segments == nil {
		e.segments = []segment{} // one hole
	}
	return nil
}

// sparseGNU reads the map of old GNU tar: four pairs in the header, then blocks
// with 21 more each.
func (t *tarReader) sparseGNU(h header, e *entry) error {
	size, err := h.number(483, 12)
	if err != nil || size < 0 || string(h[257:265]) != "ustar  \x00" {
		return bad("entry %s: it is sparse in a format of its own", quote(e.name))
	}
	e.typ, e.size = typeRegular, size
	pairs, at, count := h, 386, 4
	more := h[482] != 0
	for {
		done, err := e.addPairs(pairs, at, count)
		if err != nil {
			return err
		}
		if !more {
			return nil
		}
		if done {
			return bad("entry %s: its map of holes goes on after its end", quote(e.name))
		}
		if err := t.s.full(t.block[:]); err != nil {
			return t.cut(err)
		}
		pairs, at, count = header(t.block[:]), 0, 21
		more = pairs[504] != 0
	}
}

func (e *entry) addPairs(pairs header, at, count int) (done bool, err error) {
	for i := range count {
		field := at + 24*i
		if pairs[field] == 0 {
			return true, nil
		}
		offset, err1 := pairs.number(field, 12)
		length, err2 := pairs.number(field+12, 12)
		if err1 != nil || err2 != nil {
			return false, bad("entry %s: its map of holes can't be read", quote(e.name))
		}
		if err := e.addSegment(offset, length); err != nil {
			return false, err
		}
	}
	return false, nil
}

func (e *entry) addSegment(offset, length int64) error {
	if len(e.segments) == maxSegments {
		return over("the number of parts of a sparse file", maxSegments, e.name)
	}
	if length == 0 {
		return nil // marks the end of the file
	}
	e.segments = append(e.segments, segment{offset, length})
	return nil
}

// sparse0 reads formats 0.0 and 0.1, which have the map in pax records.
func sparse0(e *entry, pax *paxRecords) error {
	if err := sparseSize(e, pax, "size"); err != nil {
		return err
	}
	var numbers []string
	if list, ok := pax.get(sparseBlock + "map"); ok {
		if list != "" {
			numbers = strings.Split(list, ",")
		}
	} else {
		for _, r := range pax.list {
			if r.key == sparseBlock+"offset" || r.key == sparseBlock+"numbytes" {
				numbers = append(numbers, r.value)
			}
		}
	}
	if len(numbers)%2 != 0 {
		return bad("entry %s: its map of holes can't be read", quote(e.name))
	}
	for i := 0; i < len(numbers); i += 2 {
		offset, err1 := strconv.ParseInt(numbers[i], 10, 64)
		length, err2 := strconv.ParseInt(numbers[i+1], 10, 64)
		if err1 != nil || err2 != nil {
			return bad("entry %s: its map of holes can't be read", quote(e.name))
		}
		if err := e.addSegment(offset, length); err != nil {
			return err
		}
	}
	return nil
}

func sparseSize(e *entry, pax *paxRecords, key string) error {
	if name, ok := pax.get(sparseBlock + "name"); ok {
		e.name = cString([]byte(name))
	}
	text, _ := pax.get(sparseBlock + key)
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < 0 {
		return bad("entry %s: it is sparse and has no size", quote(e.name))
	}
	e.size = size
	return nil
}

// sparse10 reads format 1.0, which has the map before the content: decimal
// numbers, a line each, up to the end of a block.
func (t *tarReader) sparse10(e *entry, pax *paxRecords) error {
	key := "realsize"
	if _, ok := pax.get(sparseBlock + key); !ok {
		key = "size"
	}
	stored := e.stored
	if err := sparseSize(e, pax, key); err != nil {
		return err
	}
	lines := &blockLines{t: t, left: stored}
	count, err := lines.number()
	if err != nil || count < 0 || count > maxSegments {
		return bad("entry %s: its map of holes can't be read", quote(e.name))
	}
	for range count {
		offset, err1 := lines.number()
		length, err2 := lines.number()
		if err1 != nil || err2 != nil {
			return bad("entry %s: its map of holes can't be read", quote(e.name))
		}
		if err := e.addSegment(offset, length); err != nil {
			return err
		}
	}
	e.stored = lines.left
	// The padding is that of map and content together.
	t.pad = padding(stored) - padding(e.stored)
	return nil
}

// blockLines reads lines from whole blocks.
type blockLines struct {
	t    *tarReader
	left int64 // bytes of the entry not read yet
	buf  []byte
}

func (l *blockLines) number() (int64, error) {
	i := bytes.IndexByte(l.buf, '\n')
	for i < 0 {
		if len(l.buf) > blockLen || l.left < blockLen {
			return 0, errNumber
		}
		if err := l.t.s.full(l.t.block[:]); err != nil {
			return 0, err
		}
		l.left -= blockLen
		l.buf = append(l.buf, l.t.block[:]...)
		i = bytes.IndexByte(l.buf, '\n')
	}
	n, err := strconv.ParseInt(string(l.buf[:i]), 10, 64)
	l.buf = l.buf[i+1:]
	return n, err
}
