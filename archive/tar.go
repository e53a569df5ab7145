// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
)

// The tar formats that are read: v7, ustar (POSIX.1-1988), pax (POSIX.1-2001),
// GNU and star, as archive/tar of the standard library reads them. That one is
// not used because it hides the holes of sparse files and copies all data.

const blockLen = 512

// Types of entries, see tar(5).
const (
	typeRegular   = '0'
	typeOld       = 0
	typeLink      = '1'
	typeSymlink   = '2'
	typeChar      = '3'
	typeBlock     = '4'
	typeDir       = '5'
	typeFifo      = '6'
	typeCont      = '7'
	typePax       = 'x'
	typePaxGlobal = 'g'
	typeLongName  = 'L'
	typeLongLink  = 'K'
	typeSparse    = 'S'
)

// entry is one file of a layer as its tar describes it.
type entry struct {
	typ          byte // typeOld and typeCont are given as typeRegular
	name, link   string
	mode         uint32 // 07777
	uid, gid     uint32
	mtime        stamp
	major, minor uint32
	xattrs       []xattr
	size         int64     // of the file
	stored       int64     // bytes of content in the tar
	segments     []segment // of a sparse file: where those bytes belong
}

type stamp struct{ sec, nsec int64 }

type xattr struct {
	key   string
	value []byte
}

type segment struct{ offset, length int64 }

// tarReader reads entries. After next the caller consumes exactly entry.stored
// bytes of the stream before it calls next again.
type tarReader struct {
	s      *stream
	limits Limits
	pad    int64 // between the content just read and the next header
	block  [blockLen]byte

	// What special entries say of the one that follows.
	longName, longLink string
	pax                *paxRecords
}

func newTarReader(s *stream, limits Limits) *tarReader {
	return &tarReader{s: s, limits: limits}
}

// bad is a tar that can't be read: InvalidArgument.
func bad(format string, args ...any) error {
	return fmt.Errorf("layer tar: "+format+": %w", append(args, errdefs.ErrInvalidArgument)...)
}

// over is a layer that is over a limit: ResourceExhausted.
func over(what string, limit int64, name string) error {
	return fmt.Errorf("entry %s: %s is over the limit of %d: %w", quote(name), what, limit, errdefs.ErrResourceExhausted)
}

// quote shortens a name from a tar for a message.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		name = name[:most] + "…"
	}
	return fmt.Sprintf("%q", name)
}

// next returns the next entry, io.EOF at the end of the archive.
func (t *tarReader) next() (*entry, error) {
	for {
		err := t.s.skip(t.pad)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, io.EOF // all content is there: some programs leave the last padding out
		}
		if err != nil {
			return nil, err
		}
		t.pad = 0
		h, err := t.header()
		if err != nil {
			return nil, err
		}
		size, err := h.number(124, 12)
		if err != nil || size < 0 {
			return nil, bad("size of entry %s is %d (%v)", quote(h.name()), size, err)
		}
		special, err := t.special(h, size)
		if err != nil {
			return nil, err
		}
		if special {
			continue
		}
		return t.entry(h, size)
	}
}

// cut says so when the archive ends where it must not.
func (t *tarReader) cut(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return bad("it ends in the middle of an entry, after %d bytes", t.s.read)
	}
	return err
}

// header reads a header. Two blocks of zeros, or the end of the stream, end the
// archive.
func (t *tarReader) header() (header, error) {
	if err := t.s.full(t.block[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, t.cut(err)
	}
	h := header(t.block[:])
	if !h.zero() {
		return h, h.check()
	}
	if err := t.s.full(t.block[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, t.cut(err)
	}
	if !h.zero() {
		return nil, bad("a block of zeros stands between entries, at byte %d", t.s.read-2*blockLen)
	}
	return nil, io.EOF
}

// special takes in an entry that only says something of the next one.
func (t *tarReader) special(h header, size int64) (bool, error) {
	var limit int64
	switch h.typ() {
	case typePax, typePaxGlobal:
		limit = t.limits.Xattrs + int64(2*t.limits.PathBytes) + paxRoom
	case typeLongName, typeLongLink:
		limit = int64(t.limits.PathBytes) + blockLen
	default:
		return false, nil
	}
	if size > limit {
		return false, over("the size of its extended header", limit, h.name())
	}
	b := make([]byte, size)
	if err := t.s.full(b); err != nil && size > 0 {
		return false, t.cut(err)
	}
	t.pad = padding(size)
	switch h.typ() {
	case typeLongName:
		t.longName = cString(b)
	case typeLongLink:
		t.longLink = cString(b)
	case typePax:
		p, err := parsePax(b)
		if err != nil {
			return false, err
		}
		t.pax = p
	}
	return true, nil // global headers say nothing of files
}

// entry puts together what header and special entries say.
func (t *tarReader) entry(h header, size int64) (*entry, error) {
	e, err := h.entry(size)
	if err != nil {
		return nil, err
	}
	pax := t.pax
	longName, longLink := t.longName, t.longLink
	t.pax, t.longName, t.longLink = nil, "", ""
	if longName != "" {
		e.name = longName
	}
	if longLink != "" {
		e.link = longLink
	}
	if pax != nil {
		if err := pax.apply(e); err != nil {
			return nil, err
		}
	}
	if e.typ == typeOld {
		e.typ = typeRegular
		if strings.HasSuffix(e.name, "/") {
			e.typ = typeDir
		}
	}
	if e.typ == typeCont {
		e.typ = typeRegular
	}
	if !hasContent(e.typ) {
		e.size, e.stored = 0, 0
	}
	if err := t.sparse(h, e, pax); err != nil {
		return nil, err
	}
	t.pad += padding(e.stored)
	return e, nil
}

// hasContent says which types are followed by content; for the others the size
// means nothing, see archive/tar.
func hasContent(typ byte) bool {
	switch typ {
	case typeLink, typeSymlink, typeChar, typeBlock, typeDir, typeFifo:
		return false
	}
	return true
}

func padding(size int64) int64 { return -size & (blockLen - 1) }

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
