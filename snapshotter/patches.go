// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/metadata"
)

// onePatch is the patch with an answer: what was staged as n, which is published, or, on a
// shared layer, the one of another chain that has the same. There is one for each answer:
// who publishes one holds the answer until end, which comes after the transaction, and
// others wait and find it.
//
// What was found can be gone before the transaction, which looks again.
func (s *Snapshotter) onePatch(ctx context.Context, n uint64, layer, answer digest.Digest) (p patch, err error) {
	p.end = func() {}
	if layer != "" {
		if p.end, err = s.answers.lock(ctx, layer.String()+" "+answer.String()); err != nil {
			return patch{end: func() {}}, err
		}
		if found, err := s.findPatch(layer, answer); err == nil {
			p.end() // it is in the metadata: nobody needs to wait
			log.G(ctx).WithField("layer", found.Number).Debug("a patch that is here already serves one chain more")
			return patch{layer: found, shared: true, end: func() {}}, failpoint.Hit(failpoint.PatchFound)
		} else if !errdefs.IsNotFound(err) {
			log.G(ctx).WithError(err).WithField("diffID", layer).Warn("can't look for a patch that is here already")
		}
	}
	content, err := s.store.PublishPatch(ctx, n, answer)
	if err != nil {
		p.end()
		return patch{end: func() {}}, err
	}
	p.layer = metadata.Layer{Number: n, Usage: snapshots.Usage{Size: content.Bytes, Inodes: content.Inodes}}
	return p, nil
}

// findPatch looks through the patches on a layer for the one with an answer.
//
// ErrNotFound: there is none.
func (s *Snapshotter) findPatch(diffID, answer digest.Digest) (found metadata.Layer, err error) {
	layer, err := s.layerOfDiffID(diffID)
	if err != nil {
		return found, err
	}
	seen := map[uint64]bool{}
	for at := uint64(0); ; {
		// Directories are looked at outside of transactions.
		err := s.meta.View(func(tx *metadata.Tx) (err error) {
			found, at, err = tx.NextPatch(layer.Number, at, seen)
			return err
		})
		if err != nil {
			return metadata.Layer{}, fmt.Errorf("answer %s: %w", answer, err)
		}
		if s.hasAnswer(found.Number, answer) {
			return found, nil
		}
		seen[found.Number] = true
	}
}

// hasAnswer says whether patch n is there and has an answer. One that can't be read is
// none: the next chain gets another.
func (s *Snapshotter) hasAnswer(n uint64, answer digest.Digest) bool {
	m, err := s.store.ReadManifest(n)
	return err == nil && m.Patch && m.Answer == answer && s.store.CheckLayer(n) == nil
}
