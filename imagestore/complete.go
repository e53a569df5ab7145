// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"

	"github.com/strata-snapshotter/strata/snapshotter"
)

// Check says whether an image is complete: its manifest and configuration can be read,
// and all its layers are in the database and on disk. Blobs of layers may be missing. A
// layer directory that is empty and should not be is only a warning in the log: fsck
// tells more.
//
// ErrNotFound: something is missing. ErrUnavailable: a layer's directory is. Further
// errors are those of Get.
func (s *Store) Check(ctx context.Context, image Image) error {
	chain, err := s.Chain(ctx, image)
	if err != nil {
		return err
	}
	if len(chain) < len(image.DiffIDs) {
		return fmt.Errorf("image %s has %d layers, %d are here: %w", image.Name, len(image.DiffIDs), len(chain), errdefs.ErrNotFound)
	}
	for _, l := range chain {
		if err := checkContent(ctx, l); err != nil {
			return fmt.Errorf("image %s: %w", image.Name, err)
		}
	}
	return nil
}

// checkContent warns of a layer whose directory is empty.
func checkContent(ctx context.Context, l snapshotter.LayerInfo) (err error) {
	dir, err := os.Open(l.Path)
	if err != nil {
		return fmt.Errorf("layer directory: %w (%w)", err, errdefs.ErrUnavailable)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	_, err = dir.Readdirnames(1)
	if !errors.Is(err, io.EOF) {
		return err
	}
	logger := log.G(ctx).WithField("directory", l.Path).WithField("diffID", l.DiffID)
	if l.Empty {
		logger.Info("a layer of the image is empty, as it should be")
		return nil
	}
	logger.Warn("a layer directory is empty that had content, run strata fsck")
	return nil
}

// repair removes the snapshots of an image from the first one whose directory is gone, so
// that the layers are extracted again. Other images that stand on them lose them too, and
// are mended when they are pulled.
//
// ErrFailedPrecondition: something that can be written to stands on them.
func (s *Store) repair(ctx context.Context, image Image) error {
	for i := range image.DiffIDs {
		part := image
		part.DiffIDs = image.DiffIDs[:i+1]
		part.ChainID = chainOf(part.DiffIDs)
		_, err := s.Chain(ctx, part)
		if errdefs.IsNotFound(err) {
			return nil
		}
		if errdefs.IsUnavailable(err) {
			log.G(ctx).WithError(err).Warn("a layer directory is gone, its layer is extracted again")
			return s.removeTree(ctx, part.ChainID.String())
		}
	}
	return nil
}
