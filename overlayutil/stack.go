// SPDX-License-Identifier: Apache-2.0

package overlayutil

// Layer is one layer directory of a chain, as the stack sees it.
type Layer struct {
	// Path is the absolute, clean path of the layer's directory. Two layers with
	// the same path are the same layer.
	Path string
	// Empty says that the directory has no entries: it contributes nothing.
	Empty bool
	// OpaqueRoot says that the layer hides everything below it.
	OpaqueRoot bool
}

// Lowers returns the directories of a chain's layers, top first, that belong in
// the stack: every directory once (the topmost occurrence stays), empty layers
// left out, and nothing below a layer with an opaque root.
//
// The kernel refuses the same directory twice in one mount (ELOOP). Leaving out
// the lower copy is exact: every entry of it is shadowed by the same entry
// above, or neither is reached. The cut is made here because the kernel ignores
// an opaque xattr on the root of a layer.
func Lowers(layers []Layer) []string {
	seen := make(map[string]struct{}, len(layers))
	lowers := make([]string, 0, len(layers))
	for _, layer := range layers {
		if _, duplicate := seen[layer.Path]; !duplicate && !layer.Empty {
			seen[layer.Path] = struct{}{}
			lowers = append(lowers, layer.Path)
		}
		if layer.OpaqueRoot {
			break
		}
	}
	return lowers
}
