// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"sync"
	"sync/atomic"
)

// pieces is how many pieces of a stream are on their way at a time: between the
// source, the hash, the parser and the writers. With pieceSize it bounds what
// one Apply keeps in memory of the stream.
const pieces = 16

// piece is a part of the stream. It goes back to the free ones when the last who
// holds it releases it.
type piece struct {
	buf  []byte
	data []byte // what is in it
	refs atomic.Int32
	free chan<- *piece
}

func (p *piece) hold() { p.refs.Add(1) }

func (p *piece) release() {
	if p.refs.Add(-1) == 0 {
		p.free <- p
	}
}

// pieceBuffers keeps the buffers of finished streams for the next ones.
var pieceBuffers sync.Pool

// stream reads a Source ahead, hashes all of it, and lets one reader parse it.
type stream struct {
	ctx  context.Context
	free chan *piece
	room int         // how long the memory of a piece is
	made int         // pieces there are, at most pieces
	in   chan *piece // to the parser; closed at the end
	err  error       // why it ended, io.EOF for the end; set before in is closed

	cur   *piece
	off   int                    // what of cur was read
	read  int64                  // bytes read
	check func(read int64) error // may refuse to read on

	hashed chan struct{} // closed when hash and size are final
	hash   hash.Hash
	size   int64
}

func newStream(ctx context.Context, src Source) *stream {
	s := &stream{
		ctx:    ctx,
		free:   make(chan *piece, pieces),
		in:     make(chan *piece, pieces),
		hashed: make(chan struct{}),
		hash:   sha256.New(),
	}
	s.room = pieceSize
	if placer, ok := src.(Placer); ok {
		s.room = placer.Room()
	}
	toHash := make(chan *piece, pieces)
	go s.hashAll(toHash)
	go s.pump(src, toHash)
	return s
}

// pump brings the source into pieces.
func (s *stream) pump(src Source, toHash chan<- *piece) {
	defer close(s.in)
	defer close(toHash)
	next := func() error { return s.copyNext(src, toHash) }
	switch src := src.(type) {
	case Filler:
		next = func() error { return s.fillNext(src, toHash) }
	case Placer:
		placing := &placing{src: src}
		defer placing.end()
		next = func() error { return s.placeNext(placing, toHash) }
	}
	for s.err == nil {
		s.err = next()
		if s.err == nil {
			s.err = s.ctx.Err()
		}
	}
}

// copyNext makes the source independent of how long its bytes are needed. The copy
// costs little beside the rest.
func (s *stream) copyNext(src Source, toHash chan<- *piece) error {
	b, err := src.Next()
	for len(b) > 0 && s.ctx.Err() == nil {
		p := s.take()
		if p == nil {
			break
		}
		p.data = p.buf[:copy(p.buf, b)]
		b = b[len(p.data):]
		s.pass(p, toHash)
	}
	return err
}

func (s *stream) fillNext(src Filler, toHash chan<- *piece) error {
	p := s.take()
	if p == nil {
		return s.ctx.Err()
	}
	n, err := src.Fill(p.buf)
	if n == 0 {
		p.refs.Store(1)
		p.release()
		return err
	}
	p.data = p.buf[:n]
	s.pass(p, toHash)
	return err
}

// placing is a Placer, and the piece that it looks into for the next one.
type placing struct {
	src  Placer
	last *piece
}

func (p *placing) end() {
	if p.last != nil {
		p.last.release()
	}
}

func (s *stream) placeNext(from *placing, toHash chan<- *piece) (err error) {
	p := s.take()
	if p == nil {
		return s.ctx.Err()
	}
	p.refs.Store(1) // ours
	p.data, err = from.src.Place(p.buf)
	from.end()
	from.last = p
	if len(p.data) > 0 {
		p.hold()
		p.hold()
		toHash <- p
		s.in <- p
	}
	return err
}

func (s *stream) pass(p *piece, toHash chan<- *piece) {
	p.refs.Store(2)
	toHash <- p
	s.in <- p
}

// take returns a free piece, or a new one: most layers are small and need few.
func (s *stream) take() *piece {
	select {
	case p := <-s.free:
		return p
	default:
	}
	if s.made < pieces {
		s.made++
		if buf, ok := pieceBuffers.Get().(*[]byte); ok && len(*buf) >= s.room {
			return &piece{buf: *buf, free: s.free}
		}
		return &piece{buf: make([]byte, s.room), free: s.free}
	}
	select {
	case p := <-s.free:
		return p
	case <-s.ctx.Done():
		return nil
	}
}

func (s *stream) hashAll(in <-chan *piece) {
	defer close(s.hashed)
	for p := range in {
		_, _ = s.hash.Write(p.data) // never fails, see hash.Hash
		s.size += int64(len(p.data))
		p.release()
	}
}

// drain reads to the end, so that all is hashed. It returns why the stream
// ended if that is not its end.
func (s *stream) drain() error {
	for {
		if _, _, err := s.some(1 << 62); err != nil {
			<-s.hashed
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// close gives the buffers back. The pump has ended, or ends with the context,
// which the caller cancels before; writers hold nothing any more.
func (s *stream) close() {
	if s.cur != nil {
		s.cur.release()
		s.cur = nil
	}
	for p := range s.in {
		p.release()
	}
	<-s.hashed
	for range s.made {
		p := <-s.free
		pieceBuffers.Put(&p.buf)
	}
}

// some returns up to limit bytes of the stream that lie in one piece, and the
// piece, which the caller may hold. They are valid until the next call unless it
// does.
func (s *stream) some(limit int64) ([]byte, *piece, error) {
	for s.cur == nil || s.off == len(s.cur.data) {
		if s.cur != nil {
			s.cur.release()
			s.cur = nil
		}
		p, ok := <-s.in
		if !ok {
			return nil, nil, s.err
		}
		s.cur, s.off = p, 0
		if s.check != nil {
			if err := s.check(s.read); err != nil {
				return nil, nil, err
			}
		}
	}
	b := s.cur.data[s.off:]
	if int64(len(b)) > limit {
		b = b[:limit]
	}
	s.off += len(b)
	s.read += int64(len(b))
	return b, s.cur, nil
}

// full fills b. io.EOF if there is nothing at all, io.ErrUnexpectedEOF if there
// is less.
func (s *stream) full(b []byte) error {
	for filled := 0; filled < len(b); {
		part, _, err := s.some(int64(len(b) - filled))
		if errors.Is(err, io.EOF) && filled > 0 {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		filled += copy(b[filled:], part)
	}
	return nil
}

func (s *stream) skip(n int64) error {
	for n > 0 {
		b, _, err := s.some(n)
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		n -= int64(len(b))
	}
	return nil
}
