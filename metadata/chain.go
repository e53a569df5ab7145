// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// maxChain is far over what can be mounted. A longer chain is a circle.
const maxChain = 100_000

// Chain returns the layers, patches among them, of the committed snapshot with
// number n and of its ancestors, top first. 0 has none.
func (tx *Tx) Chain(n uint64) ([]Layer, error) {
	if n == 0 {
		return nil, nil
	}
	top, err := tx.headOf(n)
	if err != nil {
		return nil, err
	}
	if chain, ok := tx.chains.get(n); ok {
		return chain, nil
	}
	var chain []Layer
	for r := top; ; {
		if r.kind != snapshots.KindCommitted {
			return nil, fmt.Errorf("snapshot %q has children but is %v: %w", r.name, r.kind, errdefs.ErrDataLoss)
		}
		if chain, err = tx.appendLayers(chain, r); err != nil {
			return nil, fmt.Errorf("snapshot %q: %w", r.name, err)
		}
		if len(chain) > maxChain {
			return nil, fmt.Errorf("the parents of snapshot %q go in a circle: %w", r.name, errdefs.ErrDataLoss)
		}
		if r.parent == 0 {
			tx.chains.put(n, chain)
			return chain, nil
		}
		if r, err = tx.headOf(r.parent); err != nil {
			return nil, err
		}
	}
}

func (tx *Tx) appendLayers(chain []Layer, r *record) ([]Layer, error) {
	numbers := []uint64{r.patch, r.layer}
	if r.patch == 0 {
		numbers = numbers[1:]
	}
	for _, n := range numbers {
		l, err := tx.GetLayer(n)
		if err != nil {
			return nil, err
		}
		chain = append(chain, l)
	}
	return chain, nil
}

// chains remembers chains of committed snapshots. While a snapshot is there, neither it
// nor its ancestors nor their layers change or go, and its number is never another's.
// Only reading transactions ask: what one sees that writes may be rolled back.
type chains struct {
	mu    sync.Mutex
	known map[uint64][]Layer
}

// maxChains and maxKept bound how many chains, of how many layers, are remembered.
const (
	maxChains = 256
	maxKept   = 256
)

func (c *chains) get(n uint64) ([]Layer, bool) {
	if c == nil {
		return nil, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	chain, ok := c.known[n]
	return slices.Clone(chain), ok
}

// put forgets all when there are too many: those in use are soon back.
func (c *chains) put(n uint64, chain []Layer) {
	if c == nil || len(chain) > maxKept {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) == maxChains {
		c.known = make(map[uint64][]Layer)
	}
	c.known[n] = slices.Clone(chain)
}
