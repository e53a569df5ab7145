// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/metadata"
)

// Labels of extractions besides those that containerd's snapshots package names.
const (
	// parentLabel is the chainID of the layers below, on all layers but the first,
	// also where the parent itself comes with Commit only.
	parentLabel = "containerd.io/snapshot/parent-chain-id"
	// blobLabel is the digest of the layer's blob.
	blobLabel = "containerd.io/snapshot/cri.layer-digest"
)

// claim is what the labels of an extraction say of its layer. Nothing is believed but
// that the layer with that diffID, which was hashed here, is what the caller wants.
type claim struct {
	ref    string // name that containerd wants the layer to be committed under
	diffID digest.Digest
	late   bool // the parent comes with Commit
}

// reuse serves an extraction from a layer that is there. It returns no mounts and no
// error if there is none, or none that the caller may have.
//
// ErrAlreadyExists is the answer that containerd expects when there is nothing left to
// extract: it then looks the snapshot up by its label snapshot.ref and its parent.
// Otherwise the snapshot is staged, and the mounts are read-only, which tells containerd
// to go on to Commit.
func (s *Snapshotter) reuse(ctx context.Context, info snapshots.Info) ([]mount.Mount, error) {
	if s.cfg.Sharing == SharingOff || !isExtraction(info) {
		return nil, nil
	}
	c, ok, err := s.claimOf(ctx, info)
	if err != nil || !ok {
		return nil, err
	}
	var mounts []mount.Mount
	if c.late {
		mounts, err = s.stageShared(ctx, info, c)
	} else {
		for err = s.share(ctx, info, c); errors.Is(err, metadata.ErrPatchGone); {
			err = s.share(ctx, info, c)
		}
	}
	if errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) {
		log.G(ctx).WithError(err).WithField("key", info.Name).Debug("the layer is to be extracted")
		return nil, nil
	}
	return mounts, err
}

// claimOf reads the labels. Clients that don't tell the diffID, as those of containerd
// before 2.4, name the chain that it ends, and the CRI plugin's the blob. Whoever extracted
// the layer ahead, or the blob before, told us the diffID.
func (s *Snapshotter) claimOf(ctx context.Context, info snapshots.Info) (c claim, ok bool, err error) {
	c = claim{ref: info.Labels[snapshots.LabelSnapshotRef], diffID: digest.Digest(info.Labels[snapshots.LabelSnapshotDiffID])}
	if c.ref == "" {
		return c, false, nil
	}
	if c.diffID == "" {
		if c.diffID, err = s.diffIDOfRef(info); err != nil {
			return c, false, err
		}
	}
	if blob := digest.Digest(info.Labels[blobLabel]); c.diffID == "" && blob.Validate() == nil {
		err = s.meta.View(func(tx *metadata.Tx) (err error) {
			c.diffID, err = tx.DiffIDOf(blob)
			return err
		})
		if errdefs.IsNotFound(err) {
			c.diffID, err = s.diffIDInStores(ctx, blob)
		}
		if errdefs.IsNotFound(err) {
			return c, false, nil
		}
	}
	if err != nil || c.diffID.Validate() != nil {
		return c, false, err
	}
	if info.Parent == "" && c.ref != c.diffID.String() {
		// Not the first layer: its chainID would be its diffID. Only who says what is
		// below is known to bring the parent later.
		c.late = true
		return c, info.Labels[parentLabel] != "", nil
	}
	return c, true, nil
}

// diffIDOfRef is the diffID of the layer that the chain of an extraction ends with, if that is
// known: of one that was extracted ahead, or recorded since. Empty: it is not.
func (s *Snapshotter) diffIDOfRef(info snapshots.Info) (diffID digest.Digest, err error) {
	ref := info.Labels[snapshots.LabelSnapshotRef]
	if diffID, ok := s.ahead.diffIDOf(ref); ok {
		return diffID, nil
	}
	err = s.meta.View(func(tx *metadata.Tx) error {
		var parent uint64
		if info.Parent != "" {
			p, err := tx.Get(info.Parent)
			if err != nil {
				return err
			}
			parent = p.Number
		}
		found, err := tx.CommittedByRef(ref, parent)
		if err != nil || len(found) == 0 {
			return err
		}
		layer, err := tx.GetLayer(found[0].Layer)
		diffID = layer.DiffID // empty if it is of this chain alone
		return err
	})
	if errdefs.IsNotFound(err) {
		err = nil // whoever makes the snapshot says so
	}
	return diffID, err
}

// namespaceOf is the containerd namespace of a call, or of the key that containerd's
// metadata made of it.
func namespaceOf(ctx context.Context, key string) string {
	if ns, ok := namespaces.Namespace(ctx); ok {
		return ns
	}
	if ns, rest, ok := strings.Cut(key, "/"); ok && strings.Contains(rest, "/") {
		return ns
	}
	return ""
}

// may says whether the policy lets a namespace have what the snapshot called name has.
func (s *Snapshotter) may(ns, name string) bool {
	return s.cfg.Sharing == SharingAll || ns != "" && strings.HasPrefix(name, ns+"/")
}

// sharedLayer looks for a layer that a namespace may have without having its blob.
func (s *Snapshotter) sharedLayer(tx *metadata.Tx, ns string, diffID digest.Digest) (metadata.Layer, error) {
	l, err := tx.LayerByDiffID(diffID)
	if err != nil || s.cfg.Sharing == SharingAll {
		return l, err
	}
	ok, err := tx.ReferredBy(l.Number, func(name string) bool { return s.may(ns, name) })
	if err == nil && !ok {
		err = fmt.Errorf("layer %s in namespace %q: %w", diffID, ns, errdefs.ErrNotFound)
	}
	return l, err
}

// share commits a snapshot of a layer that is there, on its parent. Its error is
// ErrAlreadyExists if it did, or if there was one already.
func (s *Snapshotter) share(ctx context.Context, info snapshots.Info, c claim) error {
	base, err := s.baseOf(info)
	if err != nil {
		return err
	}
	ns := namespaceOf(ctx, info.Name)
	if err := s.meta.View(func(tx *metadata.Tx) error { return s.checkRef(tx, ns, c, base.parent) }); err != nil {
		return err
	}
	f, err := s.find(ctx, ns, c.diffID)
	if err != nil {
		return err
	}
	patch, err := s.patchOn(ctx, info.Name, f.layer, base.chain)
	if err != nil {
		s.drop(ctx, f)
		return err
	}
	defer patch.end()
	if err := s.recordShared(ctx, info, c, base, f, patch); err != nil {
		return s.dropPatch(ctx, patch, err)
	}
	s.countUse(f, &s.counts.shared)
	log.G(ctx).WithField("diffID", c.diffID).WithField("layer", f.layer.Number).Debug("a layer that is here already serves one chain more")
	return alreadyShared(c)
}

func alreadyShared(c claim) error {
	return fmt.Errorf("layer %s of snapshot %q: %w", c.diffID, c.ref, errdefs.ErrAlreadyExists)
}

// checkRef fails with ErrAlreadyExists if what is wanted is committed already.
func (s *Snapshotter) checkRef(tx *metadata.Tx, ns string, c claim, parent uint64) error {
	found, err := tx.CommittedByRef(c.ref, parent)
	if err != nil {
		return err
	}
	for _, sn := range found {
		if s.may(ns, sn.Name) {
			return alreadyShared(c)
		}
	}
	return nil
}

func (s *Snapshotter) recordShared(ctx context.Context, info snapshots.Info, c claim, base base, f found, patch patch) error {
	n, err := s.meta.Reserve(ctx)
	if err != nil {
		s.drop(ctx, f)
		return err
	}
	ns := namespaceOf(ctx, info.Name)
	request := metadata.Create{Number: n, Key: info.Name, Parent: info.Parent, Labels: info.Labels}
	var next []*above
	if f.ahead != nil && patch.layer.Number == 0 {
		next = s.takeAbove(ctx, ns, c.ref, f)
	}
	err = s.use(ctx, f, func(tx *metadata.Tx, layer metadata.Layer) error {
		// Another call may have been faster; two of them would only be untidy.
		if err := s.checkRef(tx, ns, c, base.parent); err != nil {
			return err
		}
		made, err := tx.Share(metadata.Share{Create: request, Layer: layer, Patch: patch.layer, SharedPatch: patch.shared})
		if err == nil && made.ParentNumber != base.parent {
			err = fmt.Errorf("parent %q of snapshot %q was replaced by another of that name: %w", info.Parent, info.Name, errdefs.ErrUnavailable)
		}
		if err != nil {
			return err
		}
		return recordAbove(tx, made.Name, next)
	})
	s.endAbove(ctx, next, err)
	return err
}

// patchOn is patchShared for a snapshot that is not there yet: its root directory would
// look as that of the chain.
//
// ErrUnavailable: the layer's directory is gone.
func (s *Snapshotter) patchOn(ctx context.Context, key string, layer metadata.Layer, chain []metadata.Layer) (patch, error) {
	err := s.checkRoot(chain)
	if err == nil {
		err = s.store.CheckLayer(layer.Number)
	}
	if err != nil {
		return patch{end: func() {}}, err
	}
	return s.patchShared(ctx, key, layer, chain)
}

// patchShared finds or makes the patch that a shared layer needs on a chain.
//
// ErrNotFound: on that chain the layer can't be used. It has to be extracted there.
func (s *Snapshotter) patchShared(ctx context.Context, key string, layer metadata.Layer, chain []metadata.Layer) (patch, error) {
	none := patch{end: func() {}}
	needs, err := s.needsOf(layer.Number)
	if err != nil || needs.None() {
		return none, err
	}
	p, reason, err := s.makePatch(ctx, question{
		key: key, diffID: layer.DiffID, needs: needs,
		open: func() (*os.File, error) { return s.store.OpenLayer(layer.Number) },
	}, chain)
	if err == nil && reason != "" {
		err = fmt.Errorf("layer %s has to be extracted onto those below it (%s): %w", layer.DiffID, reason, errdefs.ErrNotFound)
	}
	return p, err
}

// checkRoot makes sure that the root directory of a chain looks as those of shared
// layers do: the root shows the metadata of the topmost layer. Only what a container
// made can be different.
func (s *Snapshotter) checkRoot(chain []metadata.Layer) error {
	if len(chain) == 0 {
		return nil
	}
	attrs, err := s.store.LayerAttrs(chain[0].Number)
	if err == nil && !attrs.IsDefault() {
		err = fmt.Errorf("the root directory of layer %d has metadata of its own: %w", chain[0].Number, errdefs.ErrNotFound)
	}
	return err
}

// stageShared makes an active snapshot that has a layer already, and only waits for
// its parent.
func (s *Snapshotter) stageShared(ctx context.Context, info snapshots.Info, c claim) ([]mount.Mount, error) {
	if s.cfg.Staging == nil || !s.cfg.Staging(ctx) {
		return nil, fmt.Errorf("this containerd would extract into a staged snapshot: %w", errdefs.ErrNotFound)
	}
	if _, err := s.baseOf(info); err != nil {
		return nil, err
	}
	f, err := s.find(ctx, namespaceOf(ctx, info.Name), c.diffID)
	if err != nil {
		return nil, err
	}
	n, err := s.readyToStage(ctx, f, c)
	if err != nil {
		s.drop(ctx, f)
		return nil, err
	}
	var staged metadata.Layer
	err = s.use(ctx, f, func(tx *metadata.Tx, layer metadata.Layer) error {
		staged = layer
		if _, err := tx.Create(metadata.Create{Number: n, Kind: snapshots.KindActive, Key: info.Name, Labels: info.Labels}); err != nil {
			return err
		}
		return tx.Adopt(n, layer)
	})
	if err != nil {
		return nil, err
	}
	s.countUse(f, &s.counts.staged)
	return s.stagedMounts(info.Name, staged)
}

// readyToStage checks the layer and reserves a number for the snapshot. A layer that asks
// something of its parents is staged if it can be extracted onto them from its directory,
// since that may be the answer and nobody fetches the blob.
func (s *Snapshotter) readyToStage(ctx context.Context, f found, c claim) (uint64, error) {
	needs, err := s.needsOf(f.layer.Number)
	if err != nil {
		return 0, err
	}
	if !needs.None() && !s.replays(needs) {
		return 0, fmt.Errorf("layer %s can only be used on layers that are known: %w", c.diffID, errdefs.ErrNotFound)
	}
	if err := s.store.CheckLayer(f.layer.Number); err != nil {
		return 0, err
	}
	return s.meta.Reserve(ctx)
}

// stagedMounts show the layer of a staged snapshot, read-only.
func (s *Snapshotter) stagedMounts(key string, layer metadata.Layer) ([]mount.Mount, error) {
	if err := s.store.CheckLayer(layer.Number); err != nil {
		return nil, fmt.Errorf("snapshot %q: %w", key, err)
	}
	return []mount.Mount{{Type: "bind", Source: s.store.LayerPath(layer.Number), Options: []string{"ro", "rbind"}}}, nil
}
