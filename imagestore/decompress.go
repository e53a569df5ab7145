// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"bufio"
	"errors"
	"io"

	"github.com/strata-snapshotter/strata/internal/inflate"
)

// decompress gives the tar of an archive that may be compressed as a whole.
func decompress(r io.Reader) (io.Reader, func() error, error) {
	buffered := bufio.NewReaderSize(r, 64<<10)
	prefix, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	format := inflate.Detect(prefix)
	if format == inflate.Uncompressed {
		return buffered, func() error { return nil }, nil
	}
	inflater, err := inflate.Open(buffered, format, inflate.Options{})
	if err != nil {
		return nil, nil, err
	}
	return &chunks{from: inflater}, inflater.Close, nil
}

// chunks is an inflate.Reader as an io.Reader.
type chunks struct {
	from inflate.Reader
	rest []byte
}

func (c *chunks) Read(p []byte) (n int, err error) {
	if len(c.rest) == 0 {
		if c.rest, err = c.from.Next(); err != nil {
			return 0, err
		}
	}
	n = copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}
