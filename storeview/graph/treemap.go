// SPDX-License-Identifier: Apache-2.0

package graph

// rect is an area, in any unit.
type rect struct{ x, y, w, h float64 }

// treemap divides the area r among sizes, which are in descending order and not 0, so
// that pieces are as square as that can be: rows are laid along the shorter side, and one
// is ended where another piece would make its worst one longer (Bruls, Huizing, van Wijk:
// Squarified Treemaps, 2000).
func treemap(sizes []float64, r rect) []rect {
	total := 0.0
	for _, s := range sizes {
		total += s
	}
	pieces := make([]rect, 0, len(sizes))
	for len(sizes) > 0 && total > 0 {
		scale := r.w * r.h / total
		n := rowLength(sizes, min(r.w, r.h), scale)
		var row []rect
		row, r = layRow(sizes[:n], r, scale)
		pieces = append(pieces, row...)
		for _, s := range sizes[:n] {
			total -= s
		}
		sizes = sizes[n:]
	}
	return pieces
}

// rowLength is how many of the sizes the next row has.
func rowLength(sizes []float64, side, scale float64) int {
	sum, worst := 0.0, 0.0
	for i, s := range sizes {
		sum += s * scale
		now := max(aspect(sizes[0]*scale, sum, side), aspect(s*scale, sum, side))
		if i > 0 && now > worst {
			return i
		}
		worst = now
	}
	return len(sizes)
}

// aspect is how far from a square a piece is in a row of that sum along a side.
func aspect(size, sum, side float64) float64 {
	long, short := size/sum*side, sum/side
	return max(long/short, short/long)
}

// layRow gives the pieces of a row, and what of the area is left.
func layRow(sizes []float64, r rect, scale float64) (row []rect, left rect) {
	sum := 0.0
	for _, s := range sizes {
		sum += s * scale
	}
	at := 0.0
	for _, s := range sizes {
		if r.w >= r.h { // a column at the left
			w := sum / r.h
			row = append(row, rect{r.x, r.y + at, w, s * scale / w})
			at += s * scale / w
		} else {
			h := sum / r.w
			row = append(row, rect{r.x + at, r.y, s * scale / h, h})
			at += s * scale / h
		}
	}
	if r.w >= r.h {
		return row, rect{r.x + sum/r.h, r.y, r.w - sum/r.h, r.h}
	}
	return row, rect{r.x, r.y + sum/r.w, r.w, r.h - sum/r.w}
}
