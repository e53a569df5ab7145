// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"maps"
	"slices"
)

// ReplaceFixes put a layer in the place of another one with the same diffID, for all
// snapshots.
func (c *Contents) ReplaceFixes(old, by Layer) []Fix {
	fixes := append(LayerFixes(by), deleteFix(bucketLayers, numberKey(old.Number)))
	for _, n := range slices.Sorted(maps.Keys(c.Snapshots)) {
		sn := c.Snapshots[n]
		if sn.Layer != old.Number {
			continue
		}
		sn.Layer = by.Number
		usage := sn.Usage
		if usage.Size != 0 || usage.Inodes != 0 { // a staged one has none
			usage.Size += by.Usage.Size - old.Usage.Size
			usage.Inodes += by.Usage.Inodes - old.Usage.Inodes
		}
		fixes = append(fixes, UsageFix(sn, usage),
			deleteFix(bucketRefs, pair(old.Number, n)), putFix(bucketRefs, pair(by.Number, n), []byte{}))
	}
	return fixes
}
