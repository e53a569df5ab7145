// SPDX-License-Identifier: Apache-2.0

package storeview

import (
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
)

// Kind says what a holder is.
type Kind string

const (
	// KindImage is an image with a name.
	KindImage Kind = "image"
	// KindContainer is an active snapshot, with a container's name where one is known.
	KindContainer Kind = "container"
	// KindView is a view.
	KindView Kind = "view"
	// KindExtraction is an active snapshot that a layer is being extracted into.
	KindExtraction Kind = "extraction"
	// KindChain is a committed snapshot that nothing stands on, and no image that is
	// known: without the names of images, each of them.
	KindChain Kind = "chain"
)

// Holder keeps the snapshots of a chain, and their layers, from being removed.
type Holder struct {
	Kind Kind
	// Namespace and Name are an image's or a container's, or those of the snapshot.
	Namespace, Name string
	// Image is what a container was made of, if that is known.
	Image string
	// Digest is what the name of an image stands for.
	Digest digest.Digest
	// Top is the topmost snapshot of the chain.
	Top *Snapshot
	// Layers are those of the chain, top first, duplicates removed.
	Layers []*Layer
}

// hold finds who keeps what.
func (v *View) hold(names Names) {
	taken := map[uint64]bool{} // snapshots that are some image's
	tops := v.tops()
	for _, image := range names.Images {
		if top := topOf(image, tops); top != nil {
			taken[top.Number] = true
			v.add(&Holder{Kind: KindImage, Namespace: image.Namespace, Name: image.Name, Digest: image.Digest, Top: top})
		}
	}
	containers := map[[2]string]NamedContainer{}
	for _, c := range names.Containers {
		containers[[2]string{c.Namespace, c.Key}] = c
	}
	for _, s := range v.Snapshots {
		if s.Kind != committed {
			v.add(workOf(s, containers))
		}
	}
	for _, s := range v.Snapshots {
		if s.Kind == committed && len(s.Children) == 0 && !taken[s.Number] {
			v.add(&Holder{Kind: KindChain, Namespace: s.Namespace, Name: s.Key, Top: s})
		}
	}
	order := []Kind{KindImage, KindContainer, KindView, KindExtraction, KindChain}
	slices.SortStableFunc(v.Holders, func(a, b *Holder) int { return slices.Index(order, a.Kind) - slices.Index(order, b.Kind) })
}

func workOf(s *Snapshot, containers map[[2]string]NamedContainer) *Holder {
	h := &Holder{Kind: KindContainer, Namespace: s.Namespace, Name: s.Key, Top: s}
	switch {
	case s.Kind == view:
		h.Kind = KindView
	case s.Labels[snapshots.LabelSnapshotRef] != "":
		h.Kind = KindExtraction
	}
	if c, ok := containers[[2]string{s.Namespace, s.Key}]; ok {
		h.Name, h.Image = c.ID, c.Image
	}
	return h
}

// tops are the committed snapshots by namespace and what containerd calls them there: the
// key that they were committed under or, where a layer that was here made the commit, the
// label that containerd found them by.
func (v *View) tops() map[[2]string]*Snapshot {
	tops := map[[2]string]*Snapshot{}
	for _, s := range v.Snapshots {
		if ref := s.Labels[snapshots.LabelSnapshotRef]; s.Kind == committed && ref != "" {
			tops[[2]string{s.Namespace, ref}] = s
		}
	}
	for _, s := range v.Snapshots {
		if s.Kind == committed {
			tops[[2]string{s.Namespace, s.Key}] = s
		}
	}
	return tops
}

// topOf finds the topmost snapshot of an image, nil if the store has none of it.
func topOf(image NamedImage, tops map[[2]string]*Snapshot) *Snapshot {
	for _, id := range image.ChainIDs {
		if s := tops[[2]string{image.Namespace, id.String()}]; s != nil {
			return s
		}
	}
	return nil
}

// add follows the chain of a holder. A damaged store can have circles.
func (v *View) add(h *Holder) {
	seen, passed := map[*Layer]bool{}, map[*Snapshot]bool{}
	for s := h.Top; s != nil && !passed[s]; s = s.Parent {
		passed[s] = true
		s.Holders = append(s.Holders, h)
		for _, l := range s.Layers {
			if !seen[l] {
				seen[l] = true
				h.Layers = append(h.Layers, l)
				l.Holders = append(l.Holders, h)
			}
		}
	}
	v.Holders = append(v.Holders, h)
}

// Split says what of a holder's layers is its own, that is, in the chain of no other image, and what would go with it: layers that nothing else refers to.
type Split struct {
	Own, Shared, Reclaimable int64
}

// Split adds a holder's layers up, in bytes. What a container wrote is not in it.
func (h *Holder) Split() (sum Split) {
	for _, l := range h.Layers {
		if h.alone(l) {
			sum.Own += l.Size
		} else {
			sum.Shared += l.Size
		}
		if h.frees(l) {
			sum.Reclaimable += l.Size
		}
	}
	return sum
}

// alone: containers stand on the layers of images, and own none of them. Names of one
// and the same image don't share it with one another.
func (h *Holder) alone(l *Layer) bool {
	if h.Kind != KindImage && h.Kind != KindChain {
		return false
	}
	for _, other := range l.Holders {
		if other.Top != h.Top && (other.Kind == KindImage || other.Kind == KindChain) {
			return false
		}
	}
	return true
}

// frees: a layer goes with the last snapshot that refers to it, and a snapshot stays for
// each holder.
func (h *Holder) frees(l *Layer) bool {
	for _, s := range l.Snapshots {
		for _, other := range s.Holders {
			if other != h {
				return false
			}
		}
	}
	return true
}

// Reclaimable is what would go with all holders of these kinds, in bytes.
func (v *View) Reclaimable(kinds ...Kind) (sum int64) {
	for _, l := range v.Layers {
		goes := true
		for _, s := range l.Snapshots {
			goes = goes && !slices.ContainsFunc(s.Holders, func(h *Holder) bool { return !slices.Contains(kinds, h.Kind) })
		}
		if goes {
			sum += l.Size
		}
	}
	return sum
}

// NamesKnown says whether the name of any image is known. Where none is, every image
// looks like a chain that nobody needs.
func (v *View) NamesKnown() bool {
	return slices.ContainsFunc(v.Holders, func(h *Holder) bool { return h.Kind == KindImage })
}

// Namespaces returns those that snapshots are in, sorted.
func (v *View) Namespaces() []string {
	found := map[string]bool{}
	for _, s := range v.Snapshots {
		found[s.Namespace] = true
	}
	return slices.Sorted(maps.Keys(found))
}
