// SPDX-License-Identifier: Apache-2.0

package inflate

const (
	// outputSlack lets the fast loop copy a match in whole words: past its end, or
	// past what the mask of its length allows, but never past the window.
	outputSlack = 576
	windowSize  = maxDist + ChunkSize + outputSlack
)

// window is the decompressed data: the history that matches refer to, then the
// chunk being filled, buf[start:pos]. Everything in buf[:pos] belongs to the
// current DEFLATE stream, so a distance beyond pos is one too far back.
type window struct {
	start, pos int
	buf        *[windowSize]byte // nil: nothing was decoded yet
	own        *[windowSize]byte // for a reader that brings no memory of its own
}

// reset forgets the history, for the next stream.
func (w *window) reset() { w.start, w.pos = 0, 0 }

// limit is where a chunk ends.
func (w *window) limit() int { return w.start + ChunkSize }

// take returns the chunk, which stays in place until slide.
func (w *window) take() []byte {
	chunk := w.buf[w.start:w.pos]
	w.start = w.pos
	return chunk
}

// slide makes room for a chunk, in into, which gets the history in front. That may be
// the memory that the chunk before is in, which is gone with it.
func (w *window) slide(into *[windowSize]byte) {
	keep := min(w.pos, maxDist)
	if keep > 0 {
		copy(into[:keep], w.buf[w.pos-keep:w.pos])
	}
	w.buf, w.start, w.pos = into, keep, keep
}

// mine is memory of the window's own.
func (w *window) mine() *[windowSize]byte {
	if w.own == nil {
		w.own = new([windowSize]byte)
	}
	return w.own
}

// repeat appends a match, byte by byte where it overlaps itself.
func (w *window) repeat(dist, length int) {
	if dist >= length {
		w.pos += copy(w.buf[w.pos:w.pos+length], w.buf[w.pos-dist:])
		return
	}
	for range length {
		w.buf[w.pos] = w.buf[w.pos-dist]
		w.pos++
	}
}
