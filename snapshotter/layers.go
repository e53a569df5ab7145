// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/metadata"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// LayerInfo is one layer of a chain.
type LayerInfo struct {
	// Number names the layer's directory and is never used again.
	Number uint64
	// Path is the absolute path of the layer's directory, as mounts name it.
	Path string
	// DiffID is empty if the layer is private to its chain.
	DiffID digest.Digest
	// Empty: the layer changes nothing. OpaqueRoot: it hides everything below it.
	Empty, OpaqueRoot bool
	// Usage is what the directory takes on disk.
	Usage snapshots.Usage
}

// Layers returns the layers of the committed snapshot called name and of its parents,
// top first: with those that are empty, and as often as they are in the chain. The
// stack of a mount is Stack of them.
//
// ErrNotFound: there is no such snapshot. ErrFailedPrecondition: it is not committed.
// ErrUnavailable: the directory of a layer is gone; it is named.
func (s *Snapshotter) Layers(_ context.Context, name string) ([]LayerInfo, error) {
	var chain []metadata.Layer
	err := s.meta.View(func(tx *metadata.Tx) error {
		snapshot, err := tx.Get(name)
		if err != nil {
			return err
		}
		if snapshot.Kind != snapshots.KindCommitted {
			return fmt.Errorf("snapshot %q is not committed: %w", name, errdefs.ErrFailedPrecondition)
		}
		chain, err = tx.Chain(snapshot.Number)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.checkLayers(chain); err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", name, err)
	}
	layers := make([]LayerInfo, len(chain))
	for i, l := range chain {
		layers[i] = LayerInfo{
			Number: l.Number, Path: s.store.LayerPath(l.Number), DiffID: l.DiffID,
			Empty: l.Empty, OpaqueRoot: l.OpaqueRoot, Usage: l.Usage,
		}
	}
	return layers, nil
}

// Stack returns the directories that a mount of layers shows, top first: without
// duplicates, of which the topmost stays, without empty layers, and without what is
// below an opaque root. If nothing is left it is one empty directory.
func (s *Snapshotter) Stack(layers []LayerInfo) []string {
	plain := make([]overlayutil.Layer, len(layers))
	for i, l := range layers {
		plain[i] = overlayutil.Layer{Path: l.Path, Empty: l.Empty, OpaqueRoot: l.OpaqueRoot}
	}
	if stack := overlayutil.Lowers(plain); len(stack) > 0 {
		return stack
	}
	return []string{s.store.EmptyPath()}
}
