// SPDX-License-Identifier: Apache-2.0

package boltcopy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"

	"github.com/containerd/errdefs"
)

// The first two pages of a bbolt file say what the newest states are, by turns: the
// transactions with even numbers write the first, the others the second. Behind a page's
// header stand, in the byte order of the machine,
//
//	magic u32, version u32, page size u32, flags u32, root bucket 2×u64, free list u64,
//	pages in use u64, transaction u64, FNV-1a of all that u64
//
// (bbolt's internal/common/meta.go).
const (
	pageHeader = 16
	metaSize   = 64
	magic      = 0xED0CDAED
	version    = 2

	offPageSize = 8
	offPages    = 40
	offTxid     = 48
	offSum      = 56

	// Page sizes that bbolt can have been told to use.
	minPage, maxPage = 512, 1 << 20
)

// meta is what tells a state.
type meta struct {
	pageSize uint32
	pages    uint64 // in use are those below
	txid     uint64
}

// errNoMeta: neither page makes sense. For a moment, while they are written, that may be.
var errNoMeta = fmt.Errorf("it has no valid meta page: it is no bbolt file, or it is damaged: %w", errdefs.ErrDataLoss)

// newest reads the newest state. A page that is being written fails its sum: the state
// it tells of is none yet.
func newest(f *os.File) (meta, error) {
	first, ok := readMeta(f, 0)
	size := int64(os.Getpagesize())
	if ok {
		size = int64(first.pageSize)
	}
	second, ok2 := readMeta(f, size)
	switch {
	case ok2 && (!ok || second.txid > first.txid):
		return second, nil
	case ok:
		return first, nil
	}
	return meta{}, errNoMeta
}

func readMeta(f *os.File, page int64) (m meta, ok bool) {
	var b [metaSize]byte
	if _, err := f.ReadAt(b[:], page+pageHeader); err != nil {
		return m, false // none where the file ends
	}
	return parseMeta(b[:])
}

func parseMeta(b []byte) (m meta, ok bool) {
	order := binary.NativeEndian
	h := fnv.New64a()
	_, err := h.Write(b[:offSum])
	if err != nil || order.Uint32(b) != magic || order.Uint32(b[4:]) != version || order.Uint64(b[offSum:]) != h.Sum64() {
		return m, false
	}
	m = meta{pageSize: order.Uint32(b[offPageSize:]), pages: order.Uint64(b[offPages:]), txid: order.Uint64(b[offTxid:])}
	return m, m.check() == nil
}

func (m meta) check() error {
	if m.pageSize < minPage || m.pageSize > maxPage || m.pages > 1<<40/uint64(m.pageSize) {
		return errors.New("no sensible size")
	}
	return nil
}
