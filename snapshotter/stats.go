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
	extracted, extractedBytes, shared, staged, adopted atomic.Int64
}

// Stats returns the counts, for metrics. It does not touch the disk.
func (s *Snapshotter) Stats() Stats {
	return Stats{
		Extracted:      s.counts.extracted.Load(),
		ExtractedBytes: s.counts.extractedBytes.Load(),
		Shared:         s.counts.shared.Load(),
		Staged:         s.counts.staged.Load(),
		Adopted:        s.counts.adopted.Load(),
		TrashPending:   s.store.TrashPending(),
		Stores:         s.stores.Stats(),
	}
}
