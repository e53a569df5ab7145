// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"maps"
	"sync"

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
		if found, err := s.findPatch(ctx, layer, answer); err == nil {
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
	if layer != "" {
		s.patches.add(layer, answer, n)
	}
	p.layer = metadata.Layer{Number: n, Usage: snapshots.Usage{Size: content.Bytes, Inodes: content.Inodes}}
	return p, nil
}

// findPatch returns the patch on a layer that has an answer.
//
// ErrNotFound: there is none.
func (s *Snapshotter) findPatch(ctx context.Context, diffID, answer digest.Digest) (metadata.Layer, error) {
	n, err := s.patchNumber(ctx, diffID, answer)
	if err != nil {
		return metadata.Layer{}, err
	}
	if n != 0 && s.hasAnswer(n, answer) {
		return s.layer(n)
	}
	return metadata.Layer{}, fmt.Errorf("answer %s: %w", answer, errdefs.ErrNotFound)
}

// patchNumber is that of the patch on a layer that had an answer when it was last looked
// at, 0 if there is none. The first time all patches on the layer are read: one pass over
// the snapshots that refer to it.
func (s *Snapshotter) patchNumber(ctx context.Context, diffID, answer digest.Digest) (uint64, error) {
	unlock, err := s.answers.lock(ctx, diffID.String())
	if err != nil {
		return 0, err
	}
	defer unlock()
	if n, known := s.patches.get(diffID, answer); known {
		return n, nil
	}
	layer, err := s.layerOfDiffID(diffID)
	if errdefs.IsNotFound(err) {
		return 0, nil // it has no patches, and is not to be known as such
	}
	if err != nil {
		return 0, err
	}
	all, err := s.readPatches(layer.Number)
	if err != nil {
		return 0, err
	}
	s.patches.learn(diffID, all)
	n, _ := s.patches.get(diffID, answer)
	return n, nil
}

// readPatches reads the answers of all patches on layer n.
func (s *Snapshotter) readPatches(n uint64) (map[digest.Digest]uint64, error) {
	all, seen := map[digest.Digest]uint64{}, map[uint64]bool{}
	for at := uint64(0); ; {
		var found metadata.Layer
		// Directories are looked at outside of transactions.
		err := s.meta.View(func(tx *metadata.Tx) (err error) {
			found, at, err = tx.NextPatch(n, at, seen)
			return err
		})
		if errdefs.IsNotFound(err) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		seen[found.Number] = true
		if m, err := s.store.ReadManifest(found.Number); err == nil && m.Patch && m.Answer != "" {
			all[m.Answer] = found.Number
		}
	}
}

// knownPatches are patches by the layer that they are on and their answer. All that were
// published since the start are among them, and all on layers that were asked for. Some may
// be gone.
type knownPatches struct {
	mu sync.Mutex
	on map[digest.Digest]*patchesOn
}

type patchesOn struct {
	all      bool // those of before are among them
	byAnswer map[digest.Digest]uint64
}

// maxKnown is of how many layers patches are known at most.
const maxKnown = 1024

func (k *knownPatches) get(diffID, answer digest.Digest) (n uint64, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, known := k.on[diffID]
	if !known || !p.all {
		return 0, false
	}
	return p.byAnswer[answer], true
}

// learn makes those known that are in the metadata, where others can be published at this
// moment.
func (k *knownPatches) learn(diffID digest.Digest, recorded map[digest.Digest]uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.of(diffID)
	maps.Copy(recorded, p.byAnswer)
	p.all, p.byAnswer = true, recorded
}

func (k *knownPatches) add(diffID, answer digest.Digest, n uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.of(diffID).byAnswer[answer] = n
}

func (k *knownPatches) of(diffID digest.Digest) *patchesOn {
	p, ok := k.on[diffID]
	if ok {
		return p
	}
	if k.on == nil || len(k.on) >= maxKnown {
		k.on = map[digest.Digest]*patchesOn{} // what is asked for is read again
	}
	p = &patchesOn{byAnswer: map[digest.Digest]uint64{}}
	k.on[diffID] = p
	return p
}

// hasAnswer says whether patch n is there and has an answer. One that can't be read is
// none: the next chain gets another.
func (s *Snapshotter) hasAnswer(n uint64, answer digest.Digest) bool {
	m, err := s.store.ReadManifest(n)
	return err == nil && m.Patch && m.Answer == answer && s.store.CheckLayer(n) == nil
}
