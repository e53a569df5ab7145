// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Room on the disk is taken before it is needed. On a full one removals have to work:
// they are how room is made, and a transaction that removes writes pages, too.
const (
	// roomAhead is how many bytes behind the pages in use belong to the file at least.
	roomAhead = 1 << 20
	// roomStep is how many are taken at a time.
	roomStep = 4 << 20
)

// room is what of the file is on blocks of its own. Only the leader of a group uses it.
type room struct {
	end  int64 // in bytes
	none bool  // the file system can't do it
}

// ensure takes room behind the used bytes of the file at path. That there is none is no
// failure of what was written: the next transaction tries again.
func (r *room) ensure(path string, used int64) {
	if r.none || used+roomAhead <= r.end {
		return
	}
	want := used + roomStep
	err := allocate(path, want)
	switch {
	case err == nil:
		r.end = want
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		r.none = true
	}
}

// allocate leaves the size of the file as it is, which is bbolt's.
func allocate(path string, end int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, end)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
