// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// What follows is the file format of bbolt 1.x, as far as it says where everything is:
// go.etcd.io/bbolt/internal/common. bbolt itself panics on pages that make no sense,
// partly in goroutines of its own, which nobody can recover from. So they are looked at
// before it sees them. It goes through the same pages once more when it opens the file,
// to find those that are free.

const (
	pageHeader   = 16 // id 8, flags 2, count 2, overflow 4
	pageElement  = 16 // branch: pos 4, ksize 4, id 8; leaf: flags 4, pos 4, ksize 4, vsize 4
	bucketHeader = 16 // id of the root page 8, sequence 8

	flagBranch = 1
	flagLeaf   = 2
	flagBucket = 1 // of a leaf's element

	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	metaSummed   = 56 // bytes that the checksum, which follows, is of
	maxPageDepth = 32
)

var native = binary.NativeEndian

// pageCheck goes through the pages of a bbolt file.
type pageCheck struct {
	data []byte
	size uint64 // of a page
	high uint64 // pages from here on are not in use
	seen []bool
}

// checkPages says what is wrong with the pages that the last transaction of a bbolt file
// refers to. It takes time in proportion to the size of the file, of which it reads
// pages in use only. pageSize is that of the file's first meta page.
func checkPages(path string, pageSize int) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() < int64(2*pageSize) || st.Size() > math.MaxInt {
		return fmt.Errorf("it has %d bytes (%w)", st.Size(), io.ErrUnexpectedEOF)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map it: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(data)) }()
	c := &pageCheck{data: data, size: uint64(pageSize)}
	root, err := c.meta()
	if err != nil {
		return err
	}
	if c.high*c.size > uint64(len(data)) {
		return fmt.Errorf("it is cut off: %d bytes of %d are there (%w)", len(data), c.high*c.size, io.ErrUnexpectedEOF)
	}
	c.seen = make([]bool, c.high)
	return c.page(root, nil, nil, 0)
}

// meta reads the two meta pages. bbolt is content with one, and goes back by a
// transaction if that is the older one: what was answered would be lost without a word.
// It fits a sector of any disk, so no power cut leaves half of it.
func (c *pageCheck) meta() (root uint64, err error) {
	var newest uint64
	for i := range uint64(2) {
		p := c.data[i*c.size:][:c.size]
		m := p[pageHeader:]
		h := fnv.New64a()
		_, _ = h.Write(m[:metaSummed])
		switch {
		case native.Uint32(m) != metaMagic, native.Uint32(m[4:]) != metaVersion, native.Uint64(m[metaSummed:]) != h.Sum64():
			return 0, fmt.Errorf("meta page %d makes no sense", i)
		case uint64(native.Uint32(m[8:])) != c.size:
			return 0, fmt.Errorf("meta page %d is of a file with pages of %d bytes", i, native.Uint32(m[8:]))
		}
		if id := native.Uint64(m[48:]); i == 0 || id > newest {
			newest, root, c.high = id, native.Uint64(m[16:]), native.Uint64(m[40:])
		}
	}
	if c.high > math.MaxInt64/c.size {
		return 0, fmt.Errorf("it claims to have %d pages", c.high)
	}
	return root, nil
}

// page looks at page id and at all below it, whose keys are from low to, not including,
// high. nil: there is no bound.
func (c *pageCheck) page(id uint64, low, high []byte, depth int) error {
	if depth > maxPageDepth {
		return fmt.Errorf("page %d is too deep in its tree", id)
	}
	if id < 2 || id >= c.high {
		return fmt.Errorf("page %d does not exist", id)
	}
	head := c.data[id*c.size:]
	extent := uint64(native.Uint32(head[12:])) + 1
	if native.Uint64(head) != id || extent > c.high-id {
		return fmt.Errorf("page %d makes no sense", id)
	}
	for i := id; i < id+extent; i++ {
		if c.seen[i] {
			return fmt.Errorf("page %d is in two places", i)
		}
		c.seen[i] = true
	}
	if err := c.elements(head[:extent*c.size], low, high, depth); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// elements looks at what is in a page, or in a bucket that is within another's page.
func (c *pageCheck) elements(p, low, high []byte, depth int) error {
	flags, count := native.Uint16(p[8:]), int(native.Uint16(p[10:]))
	if flags != flagBranch && flags != flagLeaf || flags == flagBranch && count == 0 {
		return fmt.Errorf("it is neither a branch nor a leaf")
	}
	keys := make([][]byte, count+1)
	keys[count] = high
	values := make([][]byte, count)
	for i := range count {
		var ok bool
		if keys[i], values[i], ok = element(p, i, flags); !ok {
			return fmt.Errorf("entry %d is outside of it", i)
		}
		if before := low; i == 0 {
			if before != nil && bytes.Compare(keys[i], before) < 0 {
				return fmt.Errorf("its first key belongs before it")
			}
		} else if bytes.Compare(keys[i-1], keys[i]) >= 0 {
			return fmt.Errorf("key %d is not in order", i)
		}
	}
	if count > 0 && high != nil && bytes.Compare(keys[count-1], high) >= 0 {
		return fmt.Errorf("its last key belongs behind it")
	}
	return c.below(p, flags, keys, values, depth)
}

// below looks at the pages of a branch, and at the buckets of a leaf.
func (c *pageCheck) below(p []byte, flags uint16, keys, values [][]byte, depth int) error {
	for i, value := range values {
		entry := p[pageHeader+i*pageElement:]
		var err error
		switch {
		case flags == flagBranch:
			err = c.page(native.Uint64(entry[8:]), keys[i], keys[i+1], depth+1)
		case native.Uint32(entry)&flagBucket == 0:
		case len(value) < bucketHeader:
			err = fmt.Errorf("bucket %q has no header", keys[i])
		case native.Uint64(value) != 0:
			err = c.page(native.Uint64(value), nil, nil, depth+1)
		case len(value) < bucketHeader+pageHeader || depth > maxPageDepth:
			err = fmt.Errorf("bucket %q has no page", keys[i])
		default:
			err = c.elements(value[bucketHeader:], nil, nil, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// element returns key and value of entry i; a branch has no values.
func element(p []byte, i int, flags uint16) (key, value []byte, ok bool) {
	at := uint64(pageHeader + i*pageElement)
	if at+pageElement > uint64(len(p)) {
		return nil, nil, false
	}
	e := p[at:]
	if flags == flagLeaf {
		e = e[4:]
	}
	from, keySize := at+uint64(native.Uint32(e)), uint64(native.Uint32(e[4:]))
	valueSize := uint64(0)
	if flags == flagLeaf {
		valueSize = uint64(native.Uint32(e[8:]))
	}
	if from+keySize+valueSize > uint64(len(p)) {
		return nil, nil, false
	}
	return p[from : from+keySize], p[from+keySize : from+keySize+valueSize], true
}
