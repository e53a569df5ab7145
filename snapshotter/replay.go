// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"os"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/metadata"
)

// replays says whether a layer with needs can be extracted onto the layers below without
// its blob: from its directory, in the order that its entries came in.
func (s *Snapshotter) replays(needs archive.Needs) bool {
	return needs.Mounted == "" && len(needs.Order) > 0 && !s.overrides()
}

// replayOnto extracts layer n onto a mount of other layers, from its directory.
func (s *Snapshotter) replayOnto(ctx context.Context, n uint64, dir *os.File) (result archive.Result, err error) {
	needs, err := s.needsOf(n)
	if err != nil {
		return result, err
	}
	layer, err := s.store.OpenLayer(n)
	if err != nil {
		return result, err
	}
	result, err = archive.Replay(ctx, layer, needs, dir, s.archiveOptions())
	return result, errors.Join(err, layer.Close())
}

// sealOfStaged is the seal of a staged snapshot whose layer has to be extracted onto those
// below. Where the differ staged it, it is there and names the blob. One that was staged
// at Prepare had no directory either, and gets one now.
//
// ErrNotFound: it has no seal, and its layer can only be extracted from the blob.
func (s *Snapshotter) sealOfStaged(ctx context.Context, active metadata.Snapshot, layer metadata.Layer) (sealed seal, err error) {
	err = s.store.ReadSeal(active.Number, &sealed)
	if !errdefs.IsNotFound(err) {
		return sealed, err
	}
	m, readErr := s.store.ReadManifest(layer.Number)
	needs, needsErr := s.needsOf(layer.Number)
	if readErr != nil || needsErr != nil || !s.replays(needs) {
		return sealed, errors.Join(err, readErr, needsErr)
	}
	return seal{DiffID: layer.DiffID, Size: m.Size}, s.needDirectory(ctx, active)
}

// needDirectory gives a staged snapshot a directory, unless it has one of an attempt before.
// It holds the lock of the key, as Remove does: what comes after a Remove would be nobody's.
func (s *Snapshotter) needDirectory(ctx context.Context, active metadata.Snapshot) error {
	unlock, err := s.keys.lock(ctx, active.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.byNumber(active.Number); err != nil {
		return err
	}
	if s.store.CheckSnapshot(active.Number) == nil {
		return nil
	}
	defer s.store.Begin(active.Number)()
	return s.store.MakeSnapshot(active.Number, s.store.DefaultAttrs())
}
