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
	buf        [windowSize]byte
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

// slide moves the history to the front, which makes room for a chunk. The chunk
// taken before is gone with it.
func (w *window) slide() {
	keep := min(w.pos, maxDist)
	copy(w.buf[:keep], w.buf[w.pos-keep:w.pos])
	w.start, w.pos = keep, keep
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
