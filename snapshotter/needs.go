// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/metadata"
)

// question is what a layer asks of those below it.
type question struct {
	key    string        // of the snapshot, for messages
	diffID digest.Digest // of the layer, if it is shared or becomes so
	needs  archive.Needs
	open   func() (*os.File, error) // the layer
}

// patch is a layer of directories that goes on top of another in a chain, with number 0
// if there is none. Until end is called Sweep stays away from one that was made for it,
// and others with the same answer wait for it.
type patch struct {
	layer  metadata.Layer
	shared bool // it was there
	end    func()
}

// needsOf reads what was noted when layer n was extracted.
func (s *Snapshotter) needsOf(n uint64) (needs archive.Needs, err error) {
	m, err := s.store.ReadManifest(n)
	if err != nil || len(m.Needs) == 0 {
		return needs, err
	}
	if err := json.Unmarshal(m.Needs, &needs); err != nil {
		return needs, fmt.Errorf("needs of layer %d: %w (%w)", n, err, errdefs.ErrDataLoss)
	}
	return needs, nil
}

// makePatch asks the layers below, top first. Where they can't tell, it returns why the
// layer has to be extracted onto them.
func (s *Snapshotter) makePatch(ctx context.Context, q question, chain []metadata.Layer) (p patch, reason string, err error) {
	p.end = func() {}
	if q.needs.Mounted != "" || q.needs.None() || len(s.lowers(chain)) == 0 {
		return p, q.needs.Mounted, nil // nothing below could have an answer
	}
	defer step.Enter(ctx, step.Answer)()
	n, err := s.meta.Reserve(ctx)
	if err != nil {
		return p, "", err
	}
	end := s.store.Begin(n)
	reason, answer, err := s.fillPatch(ctx, n, q, chain)
	if err == nil && answer != "" {
		p, err = s.onePatch(ctx, n, q.diffID, answer)
	}
	if err != nil || p.layer.Number != n {
		s.discardPatch(ctx, n)
		end()
		return p, reason, err
	}
	unlock := p.end
	p.end = func() { unlock(); end() }
	return p, reason, nil
}

func (s *Snapshotter) discardPatch(ctx context.Context, n uint64) {
	if err := s.store.DiscardPatch(n); err != nil {
		log.G(ctx).WithError(err).WithField("layer", n).Warn("the directory of a patch stays until the next Cleanup")
	}
}

// dropPatch removes the patch that was made for what failed, and returns why it did.
func (s *Snapshotter) dropPatch(ctx context.Context, p patch, cause error) error {
	if p.layer.Number != 0 && !p.shared && !inDoubt(cause) {
		s.discardPatch(ctx, p.layer.Number)
	}
	return cause
}

func (s *Snapshotter) fillPatch(ctx context.Context, n uint64, q question, chain []metadata.Layer) (reason string, answer digest.Digest, err error) {
	below, err := s.openBelow(n, q)
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, below.Layer.Close(), below.Patch.Close()) }()
	if s.overrides() {
		return s.answerUnmounted(ctx, q, below, chain)
	}
	view := metadata.Snapshot{Info: snapshots.Info{Kind: snapshots.KindView, Name: q.key}}
	mounts, err := s.mounts(view, chain)
	if err != nil {
		return "", "", err
	}
	err = mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		merged, err := os.Open(root)
		if err != nil {
			return err
		}
		below.Merged = merged
		reason, answer, err = archive.Answer(ctx, q.needs, below, s.archiveOptions())
		return errors.Join(err, merged.Close())
	})
	if err != nil { // the layers below may have been removed
		err = errors.Join(err, s.checkLayers(chain))
	}
	return reason, answer, err
}

func (s *Snapshotter) openBelow(patch uint64, q question) (b archive.Below, err error) {
	if b.Patch, err = s.store.StagePatch(patch); err != nil {
		return b, err
	}
	if b.Layer, err = q.open(); err != nil {
		return b, errors.Join(err, b.Patch.Close())
	}
	return b, nil
}
