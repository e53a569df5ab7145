// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// Pace is asked before bytes are read, and before an entry is looked at, for which bytes
// is what that may cost. It may wait, and ends the work with its error.
type Pace func(ctx context.Context, bytes int64) error

// entryCost is what looking at an entry counts for: a block for its inode.
const entryCost = 4096

// content sums files.
type content struct {
	ctx  context.Context
	pace Pace
	buf  []byte
	read int64
}

const readSize = 256 << 10

func newContent(ctx context.Context, pace Pace) *content {
	return &content{ctx: ctx, pace: pace}
}

// wait ends with the context, and at the pace that was asked for.
func (c *content) wait(bytes int64) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if c.pace == nil {
		return nil
	}
	return c.pace(c.ctx, bytes)
}

// file sums base in dirfd, which has size bytes.
func (c *content) file(dirfd int, base string, size int64, sparse bool) (sum uint64, err error) {
	if size == 0 {
		return NewHash().Sum64(), nil
	}
	fd, err := openFile(dirfd, base)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if c.buf == nil {
		c.buf = make([]byte, readSize)
	}
	// What is read once should not push out what is read often. Kernels before 6.3
	// take no notice.
	_ = unix.Fadvise(fd, 0, 0, unix.FADV_NOREUSE)
	if sparse {
		return c.sparse(fd, size)
	}
	h := NewHash()
	return h.sumUnless(c.span(fd, h, 0, size))
}

// sumUnless is Sum64 unless err says that not all was added.
func (h *Hash) sumUnless(err error) (uint64, error) {
	if err != nil {
		return 0, err
	}
	return h.Sum64(), nil
}

// span adds the bytes from one offset to another. A file that is shorter ends earlier.
func (c *content) span(fd int, h *Hash, from, to int64) error {
	for from < to {
		want := min(to-from, int64(len(c.buf)))
		if err := c.wait(want); err != nil {
			return err
		}
		n, err := retry(func() (int, error) { return unix.Pread(fd, c.buf[:want], from) })
		if err != nil || n == 0 {
			return err
		}
		h.Add(c.buf[:n], from)
		from += int64(n)
		c.read += int64(n)
	}
	return nil
}

// sparse reads what is not a hole, see lseek(2).
func (c *content) sparse(fd int, size int64) (uint64, error) {
	h := NewSparseHash()
	for at := int64(0); at < size; {
		from, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // there is none any more
		}
		to := size
		switch {
		case errors.Is(err, unix.EINVAL):
			from = at // the file system can't tell
		case err != nil:
			return 0, err
		default:
			if to, err = unix.Seek(fd, from, unix.SEEK_HOLE); err != nil {
				return 0, err
			}
		}
		if err := c.span(fd, h, from, min(to, size)); err != nil {
			return 0, err
		}
		at = to
	}
	return h.Sum64(), nil
}
