// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"io"
	"sync"
)

// inflaters are kept for the next reader: a quarter of a megabyte each, and twice that if
// they needed memory to decode into. The garbage collector takes what is not used.
var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// ownBody is the package's own inflater as a body.
type ownBody struct {
	f *inflater
}

func newOwnBody(src io.Reader) body {
	f, ok := inflaters.Get().(*inflater)
	if !ok {
		f = new(inflater)
	}
	f.reset(src)
	return ownBody{f: f}
}

func (b ownBody) next() ([]byte, error)   { return b.f.next(b.f.out.mine()) }
func (b ownBody) restart()                { b.f.restart() }
func (b ownBody) offset() int64           { return b.f.offset() }
func (b ownBody) ReadByte() (byte, error) { return b.f.in.ReadByte() }

func (b ownBody) close() {
	b.f.in.src, b.f.in.err, b.f.out.buf = nil, nil, nil // none may outlive the reader in the pool
	inflaters.Put(b.f)
}

// closedBody stands in for a body whose buffers may already be another reader's.
type closedBody struct {
	at int64
}

func (closedBody) next() ([]byte, error)   { return nil, errClosed }
func (closedBody) restart()                {}
func (b closedBody) offset() int64         { return b.at }
func (closedBody) ReadByte() (byte, error) { return 0, errClosed }
func (closedBody) close()                  {}
