// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/strata-snapshotter/strata/storeview"
)

// The area of the map in pixels, as it is on a wide screen. It is divided for that; in
// the page all is in percent.
const (
	mapWidth, mapHeight = 1100, 420
	// maxPieces bounds how many layers have a piece of their own; the others have one
	// together, and each a row in the table.
	maxPieces = 400
)

// page is what the template shows. Sizes are for people, positions in percent.
type page struct {
	Root, Made    string
	Style, Script any
	Figures       []figure
	Pieces        []piece
	Bars          []bar
	Layers        []layerRow
	Problems      int
	NoNames       bool
}

type figure struct{ Name, Value string }

// piece is a layer drawn somewhere.
type piece struct {
	Layer               uint64 // 0: several
	X, Y, W, H          string
	Class, Fill         string
	Label, Size, Detail string
}

// bar is an image or the like, as long as it is large.
type bar struct {
	Kind, Namespace, Name          string
	Size, Own, Shared, Reclaimable string
	Layers                         int
	Pieces                         []piece
	Width                          string
	bytes                          int64
}

type layerRow struct {
	Number                   uint64
	DiffID, Kind, Size, Fill string
	Snapshots                int
	UsedBy                   []string
	Reclaimable              bool
}

func newPage(v *storeview.View, parts []storeview.Part, now time.Time) *page {
	p := &page{Root: v.Root, Made: now.UTC().Format(time.RFC1123), Problems: len(v.Problems), NoNames: !v.NamesKnown()}
	if v.ImageStore != "" {
		p.Root = v.ImageStore
	}
	for _, part := range parts {
		if part.Bytes > 0 {
			p.Figures = append(p.Figures, figure{part.Name, size(part.Bytes)})
		}
	}
	p.Figures = append(p.Figures, figure{"saved by sharing", size(v.Saved())})
	c := newColours(v)
	p.Pieces = mapPieces(v, c)
	p.Bars = bars(v, c)
	for _, l := range bySize(v.Layers) {
		p.Layers = append(p.Layers, c.row(l))
	}
	return p
}

func size(bytes int64) string { return units.HumanSize(float64(bytes)) }

func percent(part, whole float64) string {
	if whole == 0 {
		return "0%"
	}
	return strconv.FormatFloat(100*part/whole, 'f', 3, 64) + "%"
}

func bySize(layers []*storeview.Layer) []*storeview.Layer {
	sorted := slices.Clone(layers)
	slices.SortStableFunc(sorted, func(a, b *storeview.Layer) int { return cmp.Compare(b.Size, a.Size) })
	return sorted
}

// mapPieces are the layers on disk, largest first.
func mapPieces(v *storeview.View, c *colours) []piece {
	var drawn []*storeview.Layer
	rest, others := int64(0), 0
	for _, l := range bySize(v.Layers) {
		switch {
		case l.Size == 0:
		case len(drawn) < maxPieces:
			drawn = append(drawn, l)
		default:
			rest += l.Size
			others++
		}
	}
	sizes := make([]float64, 0, len(drawn)+1)
	for _, l := range drawn {
		sizes = append(sizes, float64(l.Size))
	}
	if rest > 0 {
		// Not in its order, which makes it less square and nothing else.
		sizes = append(sizes, float64(rest))
	}
	pieces := make([]piece, 0, len(sizes))
	for i, r := range treemap(sizes, rect{0, 0, mapWidth, mapHeight}) {
		pc := piece{Class: "rest", Label: fmt.Sprintf("%d smaller layers", others), Size: size(rest)}
		pc.Detail = pc.Label + ", " + pc.Size
		if i < len(drawn) {
			pc = c.piece(drawn[i])
		}
		pc.X, pc.Y = percent(r.x, mapWidth), percent(r.y, mapHeight)
		pc.W, pc.H = percent(r.w, mapWidth), percent(r.h, mapHeight)
		pieces = append(pieces, pc)
	}
	return pieces
}

// bars are images and chains, largest first, and then the others.
func bars(v *storeview.View, c *colours) (list []bar) {
	longest := int64(1)
	for _, h := range v.Holders {
		split := h.Split()
		b := bar{
			Kind: string(h.Kind), Namespace: h.Namespace, Name: shortName(h.Name), Layers: len(h.Layers), bytes: split.Own + split.Shared,
			Size: size(split.Own + split.Shared), Own: size(split.Own), Shared: size(split.Shared), Reclaimable: size(split.Reclaimable),
		}
		longest = max(longest, b.bytes)
		at := int64(0)
		for _, l := range slices.Backward(h.Layers) {
			if l.Size == 0 {
				continue
			}
			pc := c.piece(l)
			pc.X, pc.W = percent(float64(at), float64(b.bytes)), percent(float64(l.Size), float64(b.bytes))
			at += l.Size
			b.Pieces = append(b.Pieces, pc)
		}
		list = append(list, b)
	}
	for i := range list {
		list[i].Width = percent(float64(list[i].bytes), float64(longest))
	}
	isImage := func(b bar) bool {
		return b.Kind == string(storeview.KindImage) || b.Kind == string(storeview.KindChain)
	}
	slices.SortStableFunc(list, func(a, b bar) int {
		if isImage(a) != isImage(b) {
			if isImage(a) {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.bytes, a.bytes)
	})
	return list
}

// shortName shortens the digest that names of snapshots end in.
func shortName(name string) string {
	if at := strings.LastIndex(name, "sha256:"); at >= 0 && len(name) == at+71 {
		return name[:at+19]
	}
	return name
}
