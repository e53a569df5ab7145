// SPDX-License-Identifier: Apache-2.0

package storeview

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Place is where something is in a root.
type Place struct {
	// Base is the directory of the layout: "layers", "snapshots", and so on.
	Base   string
	Number uint64
	// Inside is what follows, empty for the directory itself.
	Inside string
}

// Resolve tells what a path leads to. It is below the root: absolute, or from there. It
// need not exist, and no link in it is followed.
//
// ErrNotFound: it is not in the root, or in no numbered directory of it.
func (v *View) Resolve(path string) (p Place, err error) {
	inside, err := v.below(path)
	if err != nil {
		return p, err
	}
	parts := strings.SplitN(inside, "/", 3)
	if len(parts) < 2 {
		return p, fmt.Errorf("%s belongs to the store as a whole, and to no layer or snapshot: %w", path, errdefs.ErrNotFound)
	}
	digits, _, _ := strings.Cut(parts[1], ".") // the trash adds to a number what was moved
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n == 0 {
		return p, fmt.Errorf("%s is in no numbered directory of %s: %w", path, v.Root, errdefs.ErrNotFound)
	}
	p = Place{Base: parts[0], Number: n}
	if len(parts) == 3 {
		p.Inside = parts[2]
	}
	return p, nil
}

// below gives the path from the root. The root may have been reached through links, and
// mount options name it by others still.
func (v *View) below(path string) (string, error) {
	clean := filepath.Clean(path)
	if !filepath.IsAbs(clean) {
		if filepath.IsLocal(clean) {
			return clean, nil
		}
		return "", fmt.Errorf("%s is not in %s: %w", path, v.Root, errdefs.ErrNotFound)
	}
	roots := []string{v.Root}
	if absolute, err := filepath.Abs(v.Root); err == nil {
		roots = append(roots, absolute)
	}
	if real, err := filepath.EvalSymlinks(v.Root); err == nil {
		roots = append(roots, real)
	}
	for _, root := range roots {
		if inside, ok := strings.CutPrefix(clean, strings.TrimSuffix(root, "/")+"/"); ok {
			return inside, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s: %w", path, v.Root, errdefs.ErrNotFound)
}

// Owners are those that a directory is there for.
type Owners struct {
	Place
	// Layer and Snapshot are those that the directory is of; nil if it is none's.
	Layer    *Layer
	Snapshot *Snapshot
	// Snapshots refer to the layer, or are the snapshot. Holders have one of them in
	// their chains.
	Snapshots []*Snapshot
	Holders   []*Holder
}

// OwnersOf says whose a place is. What is in staging or in the trash is nobody's, though
// its number may have been somebody's.
func (v *View) OwnersOf(p Place) Owners {
	o := Owners{Place: p}
	switch p.Base {
	case layersName:
		if o.Layer = v.layers[p.Number]; o.Layer != nil {
			o.Snapshots, o.Holders = o.Layer.Snapshots, o.Layer.Holders
		}
	case snapshotsName:
		if s := v.byNumber[p.Number]; s != nil {
			o.Snapshot, o.Snapshots, o.Holders = s, []*Snapshot{s}, s.Holders
		}
	}
	return o
}

// OwnersOfNumber is OwnersOf for all that have a number: a snapshot, and the layer that
// was made of it.
func (v *View) OwnersOfNumber(n uint64) (list []Owners) {
	if v.layers[n] != nil {
		list = append(list, v.OwnersOf(Place{Base: layersName, Number: n}))
	}
	if s := v.byNumber[n]; s != nil {
		list = append(list, v.OwnersOf(Place{Base: snapshotsName, Number: n}))
	}
	return list
}
