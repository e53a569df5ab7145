// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"errors"
	"io"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// passEntries is how many paths one pass remembers, by 8 bytes each.
const passEntries = 128 << 10

// unexpected finds the names that the index does not have. It goes through index and
// directories as often as it must for remembering only a part of the paths at a time:
// those whose checksum belongs to the pass.
func (v *verifier) unexpected(open func() (*Reader, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	passes := r.Len()/v.perPass + 1
	for pass := range passes {
		mine := func(sum uint64) bool { return (sum>>32)%passes == pass }
		known, err := v.known(open, mine)
		if err != nil {
			return err
		}
		if err := v.strangers(open, mine, known); err != nil {
			return err
		}
	}
	return nil
}

// each calls fn for every record of the index.
func each(open func() (*Reader, error), fn func(*Record) error) error {
	r, err := open()
	if err != nil {
		return err
	}
	var record Record
	for {
		err := r.Next(&record)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = fn(&record)
		}
		if err != nil {
			return err
		}
	}
}

// known returns the checksums of the paths of a pass, in order.
func (v *verifier) known(open func() (*Reader, error), mine func(uint64) bool) ([]uint64, error) {
	var known []uint64
	err := each(open, func(r *Record) error {
		if sum := xxhash.Sum64String(r.Path); mine(sum) {
			known = append(known, sum)
		}
		return v.content.ctx.Err()
	})
	slices.Sort(known)
	return known, err
}

// strangers reports the names, in directories of the index, that belong to the pass and
// are not known.
func (v *verifier) strangers(open func() (*Reader, error), mine func(uint64) bool, known []uint64) error {
	return each(open, func(r *Record) (err error) {
		if r.Type != Dir {
			return nil
		}
		if err := v.content.wait(entryCost); err != nil {
			return err
		}
		dir, err := openBeneath(v.at.root, r.Path)
		if isGone(err) {
			return nil // and was found before
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, dir.Close()) }()
		return eachName(dir, func(base string) error {
			path := join(r.Path, base)
			sum := xxhash.Sum64String(path)
			if _, found := slices.BinarySearch(known, sum); found || !mine(sum) {
				return nil
			}
			return v.problem(Unexpected, path, "the layer has no such entry")
		})
	})
}
