// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/layerindex"
	"github.com/strata-snapshotter/strata/metadata"
)

// AheadLayer is a layer of an image that is being unpacked, which nobody asked for yet.
type AheadLayer struct {
	// Namespace is the containerd namespace that has the blob.
	Namespace string
	Blob      ocispec.Descriptor
	// DiffID and ChainID are what the image says: of the layer, and of the chain that
	// ends with it. What turns out to be another layer is not kept.
	DiffID, ChainID digest.Digest
	// Below is the chainID of the chain that it stands on, empty for none.
	Below digest.Digest
}

// Extract extracts a layer into the empty directory dir, alone.
type Extract func(ctx context.Context, dir *os.File, opts archive.Options) (archive.Result, error)

// Ahead extracts a layer before it is asked for, by extract, whose context ends with the
// snapshotter. Prepare, or Apply, then finds the layer; if neither does within half a minute
// after the last image was followed it is removed. Ahead waits until no more than
// Config.UnpackAhead layers are being extracted, and fewer than 64, with less than 1 GiB, wait
// to be asked for. It does nothing where the layer is here already, or being extracted, or
// can't be extracted alone.
//
// Nothing in metadata.db names such a layer: it is as one of an additional store that is
// mounted and not used yet, and recorded with its first snapshot.
//
// ErrFailedPrecondition: layers are not shared here. ErrUnavailable: the snapshotter was
// closed. ErrInvalidArgument: the blob is not the layer that the image says.
func (s *Snapshotter) Ahead(ctx context.Context, l AheadLayer, extract Extract) error {
	if s.UnpackAhead() == 0 {
		return fmt.Errorf("layers are not unpacked ahead: %w", errdefs.ErrFailedPrecondition)
	}
	e, err := s.ahead.begin(ctx, l)
	if err != nil {
		return err
	}
	defer s.ahead.ended(e)
	unlock, ok := s.flights.blobs.tryLock(l.Blob.Digest.String())
	if !ok {
		return nil // whoever asked for it was faster
	}
	defer unlock()
	here, err := s.isHere(l)
	if here || err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ahead.ctx, cancel)()
	return s.extractAhead(ctx, e, extract)
}

// UnpackAhead is how many layers Ahead extracts at once; 0 is none.
func (s *Snapshotter) UnpackAhead() int {
	if s.cfg.Sharing == SharingOff {
		return 0
	}
	return s.cfg.UnpackAhead
}

// Extracts says whether mounts are those of an active snapshot that a layer of an image is to
// be extracted into.
func (s *Snapshotter) Extracts(mounts []mount.Mount) bool {
	n, ok := s.upperOf(mounts)
	if !ok {
		return false
	}
	active, err := s.byNumber(n)
	return err == nil && active.Kind == snapshots.KindActive && isExtraction(active.Info)
}

// Follow says that an image with these chains is being unpacked, until end is called: its
// layers are kept for so long, and half a minute more, or a few seconds if end is given a
// reason. giveUp is called, and must not wait, if an extraction of it is removed: whoever
// unpacked it has stopped.
func (s *Snapshotter) Follow(namespace string, chainIDs []digest.Digest, giveUp func()) (end func(error)) {
	return s.ahead.follow(&followed{namespace: namespace, chainIDs: chainIDs, giveUp: giveUp})
}

// isHere says whether a layer can be had without being extracted.
func (s *Snapshotter) isHere(l AheadLayer) (bool, error) {
	if _, landed := s.flights.holder(l.Blob.Digest); landed || s.ahead.has(l.Blob.Digest) {
		return true, nil
	}
	_, err := s.layerOfDiffID(l.DiffID)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return true, err
}

// extractAhead makes a layer of e, with a number that it keeps busy until somebody has it.
func (s *Snapshotter) extractAhead(ctx context.Context, e *aheadEntry, extract Extract) error {
	n, err := s.meta.Reserve(ctx)
	if err != nil {
		return err
	}
	end := s.store.Begin(n)
	layer, alone, err := s.publishAhead(ctx, n, e.AheadLayer, extract)
	if err == nil && layer.Number != 0 && s.ahead.land(e, landing{layer: layer, alone: alone, end: end}) {
		log.G(ctx).WithField("digest", e.Blob.Digest).WithField("diffID", e.DiffID).Debug("a layer was unpacked before it was asked for")
		return nil
	}
	if err := errors.Join(s.store.TrashSnapshot(n), s.store.TrashLayer(n)); err != nil {
		log.G(ctx).WithError(err).WithField("number", n).Warn("the directory of a layer that was not asked for stays until the next Cleanup")
	}
	end()
	return err
}

// publishAhead extracts layer n and puts it in its place. alone: it asks nothing of those
// below. The layer has no number if it is of no use before they are known.
func (s *Snapshotter) publishAhead(ctx context.Context, n uint64, l AheadLayer, extract Extract) (layer metadata.Layer, alone bool, err error) {
	if err := s.store.MakeSnapshot(n, s.store.DefaultAttrs()); err != nil {
		return layer, false, err
	}
	result, err := s.fillAhead(ctx, n, extract)
	if err != nil {
		return layer, false, err
	}
	if result.DiffID != l.DiffID {
		return layer, false, fmt.Errorf("blob %s is layer %s, and layer %s for its image: %w", l.Blob.Digest, result.DiffID, l.DiffID, errdefs.ErrInvalidArgument)
	}
	if result.Needs.Mounted != "" {
		return layer, false, nil
	}
	sealed := sealOf(l.Blob, result)
	if err := s.finishExtraction(ctx, n, sealed); err != nil {
		return layer, false, err
	}
	content, err := sealed.content()
	if err != nil {
		return layer, false, err
	}
	if err := s.store.Place(n, content); err != nil { // synced when it is asked for
		return layer, false, err
	}
	s.counts.extractedBytes.Add(result.Size)
	return layerRecord(n, content), result.Needs.None(), s.store.DropWork(n)
}

func (s *Snapshotter) fillAhead(ctx context.Context, n uint64, extract Extract) (result archive.Result, err error) {
	dir, err := s.store.OpenUpper(n)
	if err != nil {
		return result, err
	}
	early, index := s.store.WriteEarly(dir), s.store.IndexSnapshot(n)
	defer func() { err = errors.Join(err, early(), index.Close(), dir.Close()) }()
	opts := s.archiveOptions()
	opts.Index = layerindex.NewWriter(index)
	return extract(ctx, dir, opts)
}

// findAhead looks for a layer by look, which gives ErrNotFound, and then among those that
// were extracted ahead.
func (s *Snapshotter) findAhead(ctx context.Context, look func() (metadata.Layer, error), match func(*aheadEntry) bool) (found, error) {
	for {
		before := s.ahead.releases()
		layer, err := look()
		if !errdefs.IsNotFound(err) {
			return found{layer: layer, end: func() {}}, err
		}
		e, again := s.ahead.take(ctx, match)
		if e != nil {
			return s.foundAhead(e), nil
		}
		// One that was released between the look and this is recorded, and no longer here.
		if !again && s.ahead.releases() == before {
			return found{end: func() {}}, err
		}
	}
}

func (s *Snapshotter) foundAhead(e *aheadEntry) found {
	return found{layer: e.layer, fresh: true, ahead: e, end: func() {
		s.ahead.release(e)
		e.end()
	}}
}

// dropAhead removes layers that nobody asked for.
func (s *Snapshotter) dropAhead(ctx context.Context, entries []*aheadEntry) {
	for _, e := range entries {
		log.G(ctx).WithField("digest", e.Blob.Digest).Debug("a layer that was unpacked before it was asked for was not asked for, and is removed")
		s.trashLayers(ctx, []uint64{e.layer.Number})
		e.end()
		s.counts.aheadDropped.Add(1)
	}
}
