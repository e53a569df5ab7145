// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/snapshotter"
)

// Layers returns the absolute paths of the layer directories that an image is mounted
// from, top first: without duplicates, of which the topmost stays, and without layers
// that add nothing. An image that shows nothing at all has one empty directory.
//
// Errors are those of Get. ErrUnavailable: a layer's directory is gone. ErrNotFound also
// stands for an image that is not unpacked.
func (s *Store) Layers(ctx context.Context, ref string) ([]string, error) {
	image, err := s.Get(ctx, ref, "")
	if err != nil {
		return nil, err
	}
	chain, err := s.Chain(ctx, image)
	if err != nil {
		return nil, err
	}
	return s.own.Stack(chain), nil
}

// Chain returns every layer of an image, top first, with those that a mount leaves out.
// Errors are those of Layers.
func (s *Store) Chain(ctx context.Context, image Image) ([]snapshotter.LayerInfo, error) {
	if image.ChainID == "" {
		return nil, nil
	}
	name, err := s.SnapshotName(ctx, image.ChainID.String())
	if err != nil {
		return nil, fmt.Errorf("image %s is not unpacked, pull or load it again: %w", image.Name, errdefs.ErrNotFound)
	}
	chain, err := s.own.Layers(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image.Name, err)
	}
	return chain, nil
}
