// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/layerindex"
)

// Verified is what holding a layer against its index came to.
type Verified struct {
	DiffID digest.Digest // of a shared layer
	// Indexed: it has an index. Without one there is nothing to hold it against.
	Indexed bool
	// Damaged says what is wrong with the index itself.
	Damaged error
	// Problems are what is wrong with the files.
	Problems layerindex.Problems
	Stats    layerindex.Stats
}

// Layers returns the numbers of the layers in the root, in order.
func (s *Snapshotter) Layers() ([]uint64, error) { return s.store.Layers() }

// VerifyLayer holds the files of layer n against its index. It takes as long as reading
// them does, and keeps nobody else from anything.
//
// ErrNotFound: there is no such layer, or it was removed meanwhile, and what was found is
// of no interest. Other errors are those of layerindex.Verify.
func (s *Snapshotter) VerifyLayer(ctx context.Context, n uint64, pace layerindex.Pace) (v Verified, err error) {
	layer, err := s.layer(n)
	if err != nil {
		return v, err
	}
	v = Verified{DiffID: layer.DiffID, Indexed: true, Problems: layerindex.Problems{}}
	v.Stats, err = s.store.VerifyLayer(ctx, n, layerindex.Options{Pace: pace}, v.Problems.Add)
	if _, gone := s.layer(n); gone != nil {
		return v, gone // its files are deleted after its record
	}
	switch {
	case errdefs.IsNotFound(err):
		v.Indexed = false
	case errdefs.IsDataLoss(err), errdefs.IsFailedPrecondition(err):
		v.Damaged = err
	default:
		return v, err
	}
	return v, nil
}

// ReadScrub reads what WriteScrub kept, into v. ErrNotFound: there is nothing.
func (s *Snapshotter) ReadScrub(v any) error { return s.store.ReadScrub(v) }

// WriteScrub keeps v, how far checking the layers came, for the next process.
func (s *Snapshotter) WriteScrub(v any) error { return s.store.WriteScrub(v) }
