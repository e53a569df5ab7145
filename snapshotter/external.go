// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/extstore"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// found is a layer that a snapshot can have without extraction: one of this store, or one
// that is in its place but not recorded yet, since it is of an additional store, or was
// extracted before anybody asked for it.
type found struct {
	layer metadata.Layer
	fresh bool        // to be recorded with its first snapshot
	ahead *aheadEntry // where it comes from, if it was extracted ahead
	end   func()
}

// openStores opens the additional stores.
func (s *Snapshotter) openStores(ctx context.Context) (err error) {
	s.stores, err = extstore.Open(extstore.Options{
		Paths: s.cfg.AdditionalStores, Verify: s.cfg.Verify, Xattrs: s.xattrs,
		Warn: func(text string) { log.G(ctx).Warn(text) },
	})
	return err
}

// find looks for the layer with a diffID that a caller in a namespace may have: here, among
// those that were extracted ahead, and then in the additional stores, which are there for
// everybody.
func (s *Snapshotter) find(ctx context.Context, ns string, diffID digest.Digest) (found, error) {
	f, err := s.findAhead(ctx, func() (layer metadata.Layer, err error) {
		err = s.meta.View(func(tx *metadata.Tx) (err error) {
			layer, err = s.sharedLayer(tx, ns, diffID)
			return err
		})
		return layer, err
	}, func(e *aheadEntry) bool {
		return e.DiffID == diffID && (s.cfg.Sharing == SharingAll || e.Namespace == ns)
	})
	if !errdefs.IsNotFound(err) {
		return f, err
	}
	defer step.Enter(ctx, step.Stores)()
	ext, extErr := s.stores.Lookup(ctx, diffID)
	if extErr != nil {
		return found{end: func() {}}, errors.Join(err, extErr)
	}
	return s.bring(ctx, ext)
}

// diffIDInStores asks the additional stores which layer a blob is.
func (s *Snapshotter) diffIDInStores(ctx context.Context, blob digest.Digest) (digest.Digest, error) {
	defer step.Enter(ctx, step.Stores)()
	ext, err := s.stores.LookupBlob(ctx, blob)
	if err != nil {
		return "", err
	}
	return ext.DiffID, ext.Close()
}

// bring mounts a layer of an additional store, unless it is one of ours already. It
// closes ext.
func (s *Snapshotter) bring(ctx context.Context, ext *extstore.Layer) (f found, err error) {
	f.end = func() {}
	defer func() { err = errors.Join(err, ext.Close()) }()
	err = s.meta.View(func(tx *metadata.Tx) (err error) {
		f.layer, err = tx.LayerByDiffID(ext.DiffID)
		return err
	})
	if !errdefs.IsNotFound(err) {
		return f, err
	}
	content := layerstore.Content{
		Bytes: ext.Bytes, Inodes: ext.Inodes, Empty: ext.Empty, OpaqueRoot: ext.OpaqueRoot, DiffID: ext.DiffID, Size: ext.Size,
	}
	if !ext.Needs.None() {
		if content.Needs, err = json.Marshal(ext.Needs); err != nil {
			return f, err
		}
	}
	n, err := s.meta.Reserve(ctx)
	if err != nil {
		return f, err
	}
	end := s.store.Begin(n)
	err = s.store.AddExternal(ctx, n, layerstore.External{
		StorePath: ext.Store, Path: ext.Path, DiffID: ext.DiffID, Dir: ext.Dir, Content: content, MapIDs: s.idmap,
	})
	if err != nil {
		end()
		if errdefs.IsFailedPrecondition(err) {
			log.G(ctx).WithError(err).WithField("diffID", ext.DiffID).Warn("a layer of an additional store can't be used and is extracted instead")
			err = errors.Join(errdefs.ErrNotFound, err)
		}
		return f, err
	}
	f = found{layer: layerRecord(n, content), fresh: true, end: end}
	f.layer.Usage = snapshots.Usage{} // it takes nothing of this disk
	return f, nil
}

// use runs fn, which records a snapshot on the layer that was found, in a transaction,
// and the layer with it if it is new. It ends the use of f.
func (s *Snapshotter) use(ctx context.Context, f found, fn func(*metadata.Tx, metadata.Layer) error) error {
	defer f.end()
	used := f.layer
	if f.ahead != nil {
		if err := s.ahead.sync(f.ahead, s.store.SyncLayers); err != nil {
			s.trashLayers(ctx, []uint64{f.layer.Number})
			return err
		}
	}
	err := s.meta.Update(ctx, func(tx *metadata.Tx) (err error) {
		if err := failpoint.Hit(failpoint.UseRecord); err != nil {
			return err
		}
		used = f.layer
		if f.fresh {
			if used, err = tx.AddLayer(f.layer); err != nil {
				return err
			}
		}
		if f.ahead != nil {
			if err := tx.BindBlob(f.ahead.Blob.Digest, f.layer.DiffID); err != nil {
				return err
			}
		}
		return fn(tx, used)
	})
	failpoint.Pass(failpoint.UseRecorded)
	if f.fresh && !inDoubt(err) && (err != nil || used.Number != f.layer.Number) {
		s.trashLayers(ctx, []uint64{f.layer.Number})
	}
	return err
}

// drop ends the use of a layer that was found and not needed.
func (s *Snapshotter) drop(ctx context.Context, f found) {
	if f.ahead != nil && s.ahead.putBack(f.ahead) {
		return
	}
	if f.fresh {
		s.trashLayers(ctx, []uint64{f.layer.Number})
	}
	f.end()
}
