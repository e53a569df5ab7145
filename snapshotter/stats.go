// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"sync/atomic"

	"github.com/strata-snapshotter/strata/extstore"
)

// Stats counts what became of layers since the snapshotter was opened.
type Stats struct {
	// Extracted layers, and the bytes of their uncompressed streams.
	Extracted, ExtractedBytes int64
	// Shared extractions were committed by Prepare, on a layer that was there.
	Shared int64
	// Staged extractions were given a layer by Prepare, and wait for Commit.
	Staged int64
	// Ahead is how many layers were extracted before they were asked for, and then were:
	// they count as this, and neither as extracted nor as shared, staged or adopted.
	// AheadDropped ones were not asked for, and removed.
	Ahead, AheadDropped int64
	// Adopted extractions were given a layer by Apply, which did not read the blob, or by
	// Commit, which dropped what was extracted.
	Adopted int64
	// TrashPending is how many removed directories are not deleted yet, about.
	TrashPending int64
	// Stores are the look-ups in additional stores.
	Stores extstore.Stats
}

// counts are Stats as they are counted.
type counts struct {
	extracted, extractedBytes, shared, staged, adopted, ahead, aheadDropped atomic.Int64
}

// countUse counts a layer that was given to a snapshot: in the way that it was, or as one
// that was extracted ahead.
func (s *Snapshotter) countUse(f found, way *atomic.Int64) {
	if f.ahead != nil {
		way = &s.counts.ahead
	}
	way.Add(1)
}

// Stats returns the counts, for metrics. It does not touch the disk.
func (s *Snapshotter) Stats() Stats {
	return Stats{
		Extracted:      s.counts.extracted.Load(),
		ExtractedBytes: s.counts.extractedBytes.Load(),
		Shared:         s.counts.shared.Load(),
		Staged:         s.counts.staged.Load(),
		Adopted:        s.counts.adopted.Load(),
		Ahead:          s.counts.ahead.Load(),
		AheadDropped:   s.counts.aheadDropped.Load(),
		TrashPending:   s.store.TrashPending(),
		Stores:         s.stores.Stats(),
	}
}
