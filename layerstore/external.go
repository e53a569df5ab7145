// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/failpoint"
)

// FormatExternal is a layer whose directory is in an additional store and bound
// to layers/N/fs. All layers lie under one root that way: mount options stay
// short, and idmapped mounts of that root include it.
const FormatExternal = "external"

// External is a layer of a read-only additional store.
type External struct {
	// StorePath is the absolute path of the store, Path that of the layer's
	// directory below it: slash separated, without links.
	StorePath, Path string
	DiffID          digest.Digest
	// Dir is the layer's directory. AddExternal does not close it.
	Dir *os.File
	// Content is what the store says of the layer.
	Content Content
	// MapIDs asks for a mount that idmapped mounts work on. Without that one layer
	// on a file system that can't map ids would keep every container with mapped
	// ids from being mounted, since containerd maps all layers at once.
	MapIDs bool
}

func (e External) validate() error {
	switch {
	case e.Dir == nil:
		return fmt.Errorf("external layer %s: its directory is not open: %w", e.DiffID, errdefs.ErrInvalidArgument)
	case !filepath.IsAbs(e.StorePath), !filepath.IsLocal(e.Path):
		return fmt.Errorf("external layer %s: %q and %q are not the paths of a store and a layer in it: %w", e.DiffID, e.StorePath, e.Path, errdefs.ErrInvalidArgument)
	}
	if err := e.DiffID.Validate(); err != nil {
		return fmt.Errorf("external layer %q: %w (%w)", e.DiffID, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

// AddExternal makes a layer of an additional store layer n. When it returns, the
// layer is mounted, read-only, and what is needed to mount it again survives a
// power cut.
//
// The caller holds Begin(n) until the layer's transaction is committed; if that
// fails it calls TrashLayer.
//
// ErrInvalidArgument: ext makes no sense. ErrAlreadyExists: there is a layer n.
// ErrFailedPrecondition: the directory can't be bound here (no privilege, or a
// file system without idmapped mounts where they are asked for); the layer can be
// extracted instead. Whatever the error is, nothing is left behind.
func (s *Store) AddExternal(ctx context.Context, n uint64, ext External) (err error) {
	if err := errors.Join(ext.validate(), ctx.Err()); err != nil {
		return err
	}
	there, err := exists(s.layers, name(n))
	if there {
		return fmt.Errorf("layer %d: %w", n, errdefs.ErrAlreadyExists)
	}
	if err != nil {
		return s.rootError(err)
	}
	// What is most likely to fail comes first, while there is nothing to undo.
	bind, err := newBind(ext.Dir, ext.MapIDs)
	if err != nil {
		return s.rootError(fmt.Errorf("layer %s of additional store %s: %w", ext.DiffID, ext.StorePath, err))
	}
	err = s.addExternal(n, ext, bind)
	return s.rootError(errors.Join(err, bind.close()))
}

func (s *Store) addExternal(n uint64, ext External, bind *bind) error {
	note := externalNote{Store: ext.StorePath, Path: ext.Path, DiffID: ext.DiffID, MapIDs: ext.MapIDs}
	err := s.stageExternal(n, ext)
	if err == nil {
		err = s.placeExternal(n, note)
	}
	if err != nil {
		return errors.Join(err, s.toTrash(s.staging, name(n)))
	}
	err = s.sync(s.syncLayers.Do)
	if err == nil {
		err = s.attachTo(n, bind)
	}
	if err != nil {
		return errors.Join(err, s.toTrash(s.layers, name(n)))
	}
	return nil
}

// stageExternal makes the layer without its directory's content.
func (s *Store) stageExternal(n uint64, ext External) (err error) {
	if err := mkdir(s.staging, name(n), 0o700); err != nil {
		return err
	}
	dir, err := openDir(int(s.staging.Fd()), name(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	// 0700: what is seen where the mount is missing is nobody's layer.
	if err := mkdir(dir, fsName, 0o700); err != nil {
		return err
	}
	return s.putManifest(s.staging, n, Manifest{
		Format: FormatExternal, Store: ext.StorePath, StoreLayer: ext.Path, DiffID: ext.DiffID,
		Empty: ext.Content.Empty, OpaqueRoot: ext.Content.OpaqueRoot, Bytes: ext.Content.Bytes, Inodes: ext.Content.Inodes,
		Size: ext.Content.Size, Needs: ext.Content.Needs,
	})
}

// placeExternal notes the layer, so that it is mounted after a crash from here
// on, and moves it to its place.
func (s *Store) placeExternal(n uint64, note externalNote) error {
	s.externals.changing.Lock()
	defer s.externals.changing.Unlock()
	err := failpoint.Hit(failpoint.ExternalNote)
	if err == nil {
		err = s.writeNote(n, note)
	}
	if err == nil {
		err = failpoint.Hit(failpoint.ExternalPlace)
	}
	if err == nil {
		err = rename(s.staging, name(n), s.layers, name(n))
	}
	if err != nil {
		return errors.Join(err, s.forgetNote(n))
	}
	failpoint.Pass(failpoint.ExternalPlaced)
	s.externals.set(n, note)
	return nil
}

func (s *Store) attachTo(n uint64, bind *bind) (err error) {
	dir, err := openDir(int(s.layers.Fd()), name(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := failpoint.Hit(failpoint.ExternalAttach); err != nil {
		return err
	}
	return bind.attach(dir, fsName)
}
