// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"errors"
	"io"
)

// counter is a source that remembers what it delivered, for decoders that neither
// count nor tell the source's errors from their own.
type counter struct {
	src  io.Reader
	n    int64
	idle int   // times in a row that nothing came, which decoders would wait out forever
	err  error // the source's own, io.EOF aside
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.n += int64(n)
	if c.idle++; n > 0 {
		c.idle = 0
	}
	if err == nil && c.idle > maxEmptyReads {
		err = io.ErrNoProgress
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}
