// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// file copies a regular file.
func (c *copier) file(e *entry) (err error) {
	src, err := e.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(c.dir.Fd()), e.base, flags, 0o600)
	if err != nil {
		return wrapAt("create", e, err)
	}
	dst := os.NewFile(uintptr(fd), e.base)
	err = copyData(src, dst, e.st.Size)
	if err = errors.Join(err, dst.Close()); err != nil {
		return wrapAt("copy", e, err)
	}
	return c.metadata(e)
}

// copyData shares the blocks of src where the file system can do that, and else
// copies what is not a hole.
func copyData(src, dst *os.File, size int64) error {
	if size == 0 || unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		begin, end, err := nextData(src, at, size)
		if err != nil {
			return err
		}
		if err := copyRange(src, dst, begin, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// nextData finds the data at or after at. Where holes can't be told all is data.
func nextData(src *os.File, at, size int64) (begin, end int64, err error) {
	begin, err = unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return at, size, nil
	case err != nil:
		return 0, 0, err
	}
	end, err = unix.Seek(int(src.Fd()), begin, unix.SEEK_HOLE)
	return min(begin, size), min(end, size), err
}

// copyRange lets the kernel copy, which a network file system can leave to its
// server, or copies itself.
func copyRange(src, dst *os.File, begin, end int64) error {
	from, to := begin, begin
	for from < end {
		n, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, int(min(end-from, 1<<30)), 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			// Between file systems, or one that can't: whatever is really wrong shows
			// up here too.
			return copyBytes(src, dst, from, end)
		}
	}
	return nil
}

func copyBytes(src, dst *os.File, begin, end int64) error {
	n, err := io.Copy(io.NewOffsetWriter(dst, begin), io.NewSectionReader(src, begin, end-begin))
	if err == nil && n < end-begin {
		err = io.ErrUnexpectedEOF
	}
	return err
}
