// SPDX-License-Identifier: Apache-2.0

package graph

import (
	"fmt"
	"slices"
	"strings"

	"github.com/strata-snapshotter/strata/storeview"
)

// colours gives each layer that several images, or the like, have a colour of its own.
// All others have one together; nothing is told by colour alone.
type colours struct {
	named bool
	fills map[*storeview.Layer]string
}

func newColours(v *storeview.View) *colours {
	c := &colours{named: v.NamesKnown(), fills: map[*storeview.Layer]string{}}
	for _, l := range bySize(v.Layers) {
		if images(l) > 1 {
			// The golden angle: however many there are, neighbours differ.
			hue := (float64(len(c.fills))*137.508 + 200)
			c.fills[l] = fmt.Sprintf("hsl(%.0f, 62%%, %d%%)", hue-360*float64(int(hue/360)), 68+8*(len(c.fills)/7%2))
		}
	}
	return c
}

// images is how many different images or chains have the layer: names of the same one
// count once.
func images(l *storeview.Layer) int {
	tops := map[*storeview.Snapshot]bool{}
	for _, h := range l.Holders {
		if h.Kind == storeview.KindImage || h.Kind == storeview.KindChain {
			tops[h.Top] = true
		}
	}
	return len(tops)
}

// unused: no image, container or view has the layer, where names are known at all.
func (c *colours) unused(l *storeview.Layer) bool {
	return c.named && !slices.ContainsFunc(l.Holders, func(h *storeview.Holder) bool { return h.Kind != storeview.KindChain })
}

func (c *colours) piece(l *storeview.Layer) piece {
	p := piece{Layer: l.Number, Class: "single", Fill: c.fills[l], Label: fmt.Sprintf("layer %d", l.Number), Size: size(l.Size)}
	switch n := images(l); {
	case n > 1:
		p.Class = "shared"
		p.Label += fmt.Sprintf(" ×%d", n)
	case c.unused(l):
		p.Class = "unused"
		p.Label += " unused"
	}
	p.Detail = fmt.Sprintf("%s, %s, %s", p.Label, p.Size, strings.Join(names(l), ", "))
	return p
}

func (c *colours) row(l *storeview.Layer) layerRow {
	r := layerRow{
		Number: l.Number, DiffID: l.DiffID.String(), Size: size(l.Size), Fill: c.fills[l], Snapshots: len(l.Snapshots),
		UsedBy: names(l), Reclaimable: c.unused(l), Kind: "one image's",
	}
	switch {
	case l.External:
		r.Kind = "in an additional store"
	case r.Fill != "":
		r.Kind = "shared"
	case r.Reclaimable:
		r.Kind = "unused"
	}
	return r
}

// maxNames bounds how many names one layer is shown with.
const maxNames = 50

func names(l *storeview.Layer) (list []string) {
	for i, h := range l.Holders {
		if i == maxNames {
			return append(list, fmt.Sprintf("and %d more", len(l.Holders)-maxNames))
		}
		name := shortName(h.Name)
		if h.Kind != storeview.KindImage {
			name = string(h.Kind) + " " + name
		}
		list = append(list, name)
	}
	return list
}
