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
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/layerindex"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// seal is what extracting a layer found out, kept for Commit.
type seal struct {
	DiffID     digest.Digest      `json:"diffID"`
	Blob       ocispec.Descriptor `json:"blob"`
	Size       int64              `json:"size"` // of the uncompressed stream
	Bytes      int64              `json:"bytes"`
	Inodes     int64              `json:"inodes"`
	Empty      bool               `json:"empty"`
	OpaqueRoot bool               `json:"opaqueRoot"`
	Needs      archive.Needs      `json:"needs"`
	// Indexed: the index beside the directory says what is in it.
	Indexed bool `json:"indexed,omitempty"`
	// Private: the directory was made on the layers below and is wrong on others.
	Private bool `json:"private,omitempty"`
}

// Unpacker extracts the layer of a blob onto a directory that shows the layers
// below it. It is asked for those few layers that can't be extracted alone, which
// may only turn out at Commit.
type Unpacker interface {
	ApplyOnto(ctx context.Context, desc ocispec.Descriptor, dir *os.File, opts archive.Options) (archive.Result, error)
}

// UseUnpacker makes u known. It is called once, before the snapshotter serves.
func (s *Snapshotter) UseUnpacker(u Unpacker) { s.unpacker = u }

// Stage is the upper directory of an active snapshot while a layer is extracted
// into it.
type Stage struct {
	s      *Snapshotter
	blob   ocispec.Descriptor
	active metadata.Snapshot
	dir    *os.File
	unlock func()
	leave  func()       // no longer counts among the extractions under way
	sealed bool         // Commit finds what it needs
	landed bool         // others can have the layer
	early  func() error // ends writing the content to the disk while there is more
	index  *layerstore.IndexFile
	writer *layerindex.Writer
}

// Stage takes the upper directory of the active snapshot that mounts belong to,
// for extracting the layer of blob into it alone. While somebody else extracts the
// same blob it waits: Adopt then finds the layer, if the other did not fail.
//
// ErrNotFound: the mounts are not of this store, or something is in the directory
// already. The layer is then to be extracted onto the mounts.
func (s *Snapshotter) Stage(ctx context.Context, mounts []mount.Mount, blob ocispec.Descriptor) (*Stage, error) {
	n, ok := s.upperOf(mounts)
	if !ok {
		return nil, fmt.Errorf("mounts that are not overlays of %s: %w", s.cfg.Root, errdefs.ErrNotFound)
	}
	active, err := s.stageable(n)
	if err != nil {
		return nil, err
	}
	st := &Stage{s: s, blob: blob, active: active, leave: func() {}}
	if err := st.lock(ctx); err != nil {
		return nil, err
	}
	if err := st.take(); err != nil {
		st.unlock()
		return nil, err
	}
	st.leave = s.ahead.enter()
	st.early = s.store.WriteEarly(st.dir)
	st.index = s.store.IndexSnapshot(n)
	st.writer = layerindex.NewWriter(st.index)
	return st, nil
}

// take opens the directory, unless whoever had it before gave the snapshot its layer.
func (st *Stage) take() (err error) {
	n := st.active.Number
	if st.active, err = st.s.stageable(n); err != nil {
		return err
	}
	st.s.flights.forget(n)
	st.dir, err = st.s.takeUpper(n)
	return err
}

func (s *Snapshotter) stageable(n uint64) (active metadata.Snapshot, err error) {
	if active, err = s.byNumber(n); err != nil {
		return active, err
	}
	if active.Kind != snapshots.KindActive {
		return active, fmt.Errorf("snapshot %q is not active: %w", active.Name, errdefs.ErrFailedPrecondition)
	}
	if active.Layer != 0 {
		return active, fmt.Errorf("snapshot %q has its layer already: %w", active.Name, errdefs.ErrFailedPrecondition)
	}
	return active, nil
}

// lock keeps others off the directory, and off the blob if they could share it.
func (st *Stage) lock(ctx context.Context) error {
	upper, err := st.s.uppers.lock(ctx, st.active.Name)
	if err != nil {
		return err
	}
	st.unlock = upper
	if !st.shares() {
		return nil
	}
	defer step.Enter(ctx, step.WaitBlob)()
	blob, err := st.s.flights.blobs.lock(ctx, st.blob.Digest.String())
	if err != nil {
		upper()
		return err
	}
	st.unlock = func() { blob(); upper() }
	return nil
}

// upperOf reads the number of our snapshot whose upperdir an overlay has.
func (s *Snapshotter) upperOf(mounts []mount.Mount) (uint64, bool) {
	if len(mounts) != 1 || (mounts[0].Type != "overlay" && mounts[0].Type != overlayutil.FuseOverlayfs) {
		return 0, false
	}
	for _, o := range mounts[0].Options {
		if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
			return s.store.NumberOfUpper(upper)
		}
	}
	return 0, false
}

// takeUpper opens an upper directory that has nothing in it. A layer that is
// there already is no longer what Commit will find: its seal goes.
func (s *Snapshotter) takeUpper(n uint64) (*os.File, error) {
	if err := s.store.DropSeal(n); err != nil {
		return nil, err
	}
	dir, err := s.store.OpenUpper(n)
	if err != nil {
		return nil, err
	}
	names, err := dir.Readdirnames(1)
	if len(names) > 0 {
		err = fmt.Errorf("snapshot number %d has something in it: %w", n, errdefs.ErrNotFound)
	} else if err != nil {
		_, err = dir.Seek(0, 0) // io.EOF: nothing is there
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// Dir is the empty upper directory. Release closes it.
func (st *Stage) Dir() *os.File { return st.dir }

// Options are those that layers of this store are extracted with, once.
func (st *Stage) Options() archive.Options {
	opts := st.s.archiveOptions()
	opts.Index = st.writer
	return opts
}

func (s *Snapshotter) archiveOptions() archive.Options {
	return archive.Options{Xattrs: s.xattrs, Limits: s.cfg.Limits, OverrideStat: s.overrides()}
}

// Seal remembers, for Commit, that the directory holds the layer of desc. If the
// snapshot has a parent, what the layer needs of those below is seen to now, while
// the blob is at hand; otherwise Commit does it. The content is made durable.
func (st *Stage) Seal(ctx context.Context, desc ocispec.Descriptor, result archive.Result) error {
	st.leave() // from now on it waits for the disk
	sealed := sealOf(desc, result)
	if err := errors.Join(st.early(), st.index.Close()); err != nil {
		return err
	}
	s, n := st.s, st.active.Number
	if sealed.Needs.Mounted != "" && st.active.ParentNumber != 0 {
		chain, err := s.chainOf(st.active.ParentNumber)
		if err != nil {
			return err
		}
		if err := s.extractMounted(ctx, st.active, chain, sealed); err != nil {
			return err
		}
	}
	if err := s.finishSeal(ctx, n, sealed); err != nil {
		return err
	}
	st.sealed, st.landed = true, !sealed.Private
	s.counts.extracted.Add(1)
	s.counts.extractedBytes.Add(result.Size)
	return nil
}

func sealOf(blob ocispec.Descriptor, result archive.Result) *seal {
	return &seal{
		DiffID: result.DiffID, Blob: blob, Size: result.Size, Bytes: result.Bytes, Inodes: result.Inodes,
		Empty: result.Empty, OpaqueRoot: result.OpaqueRoot, Needs: result.Needs, Indexed: result.Indexed,
	}
}

// finishSeal finishes an extraction and writes the seal.
func (s *Snapshotter) finishSeal(ctx context.Context, n uint64, sealed *seal) error {
	if err := s.finishExtraction(ctx, n, sealed); err != nil {
		return err
	}
	return s.store.WriteSeal(n, sealed)
}

// finishExtraction measures what was not counted, indexes what was not recorded, and syncs.
// What can't be extracted yet has no index.
func (s *Snapshotter) finishExtraction(ctx context.Context, n uint64, sealed *seal) error {
	if sealed.Bytes < 0 {
		c, err := s.store.Measure(ctx, n)
		if err != nil {
			return err
		}
		sealed.Bytes, sealed.Inodes, sealed.Empty = c.Bytes, c.Inodes, c.Empty
	}
	if !sealed.Indexed && sealed.Needs.Mounted == "" {
		if err := s.store.BuildIndex(ctx, n); err != nil {
			return err
		}
		sealed.Indexed = true
	}
	return s.store.SyncSnapshot(ctx, n, sealed.Inodes)
}

// Release ends the use of the directory. What a failure left in it is removed.
func (st *Stage) Release() error {
	defer st.unlock()
	defer st.leave()
	err := errors.Join(st.early(), st.index.Close(), st.dir.Close())
	if st.landed && st.shares() {
		st.s.flights.landed(st.blob.Digest, st.active.Number)
	}
	if st.sealed {
		return err
	}
	return errors.Join(err, st.s.store.ResetSnapshot(st.active.Number, st.s.store.DefaultAttrs()))
}

func (s *Snapshotter) chainOf(parent uint64) (chain []metadata.Layer, err error) {
	err = s.meta.View(func(tx *metadata.Tx) error {
		chain, err = tx.Chain(parent)
		return err
	})
	return chain, err
}

// extractMounted extracts the layer of a seal onto the layers below it, in place
// of what is in the snapshot's directory.
func (s *Snapshotter) extractMounted(ctx context.Context, active metadata.Snapshot, chain []metadata.Layer, sealed *seal) error {
	if s.unpacker == nil && sealed.Blob.Digest != "" {
		return fmt.Errorf("layer %s can only be extracted onto those below it (%s), and its blob can't be read here: %w", sealed.DiffID, sealed.Needs.Mounted, errdefs.ErrFailedPrecondition)
	}
	log.G(ctx).WithField("diffID", sealed.DiffID).WithField("reason", sealed.Needs.Mounted).Debug("extracting a layer onto those below it")
	if err := s.store.ResetSnapshot(active.Number, s.store.DefaultAttrs()); err != nil {
		return err
	}
	// Until it is done the seal says that it is to be done: a Commit that comes
	// after a failure, or a crash, must not take half a layer for a whole one.
	if err := s.store.WriteSeal(active.Number, sealed); err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.ExtractMounted); err != nil {
		return err
	}
	result, err := s.extractOnto(ctx, active, chain, sealed)
	if err != nil {
		return fmt.Errorf("layer %s: %w", sealed.DiffID, errors.Join(err, s.checkLayers(chain)))
	}
	if sealed.Blob.Digest != "" && result.DiffID != sealed.DiffID {
		return fmt.Errorf("blob %s was layer %s and is %s now: %w", sealed.Blob.Digest, sealed.DiffID, result.DiffID, errdefs.ErrDataLoss)
	}
	sealed.Bytes, sealed.Inodes, sealed.OpaqueRoot, sealed.Needs, sealed.Private = -1, -1, false, archive.Needs{}, true
	sealed.Indexed = false
	return nil
}

// extractOnto extracts a layer into the empty directory of a snapshot, seeing the layers
// below.
func (s *Snapshotter) extractOnto(ctx context.Context, active metadata.Snapshot, chain []metadata.Layer, sealed *seal) (result archive.Result, err error) {
	if s.overrides() {
		return s.extractUnmounted(ctx, active, chain, sealed)
	}
	info := active.Info
	info.Labels = map[string]string{snapshots.LabelSnapshotRef: "overlay"} // also over nothing
	mounts, err := s.mounts(metadata.Snapshot{Info: info, Number: active.Number}, chain)
	if err != nil {
		return result, err
	}
	err = mount.WithTempMount(ctx, mounts, func(root string) error {
		dir, err := os.Open(root)
		if err != nil {
			return err
		}
		if sealed.Blob.Digest == "" {
			result, err = s.replayOnto(ctx, active.Layer, dir)
		} else {
			result, err = s.unpacker.ApplyOnto(ctx, sealed.Blob, dir, s.archiveOptions())
		}
		return errors.Join(err, dir.Close())
	})
	return result, err
}
