// SPDX-License-Identifier: Apache-2.0

package storeview

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/layerindex"
	"github.com/strata-snapshotter/strata/metadata"
)

// Verdict is what holding a layer against its index came to.
type Verdict string

const (
	// Sound says that every file is as it was when the layer was made.
	Sound Verdict = "sound"
	// Damaged says that files differ, or the index can't be read.
	Damaged Verdict = "damaged"
	// Unindexed says that there is nothing to hold it against.
	Unindexed Verdict = "no index"
	// Elsewhere says that it is in an additional store, which has records of its own.
	Elsewhere Verdict = "external"
	// Removed says that it went meanwhile.
	Removed Verdict = "removed"
)

// Verified is a verdict with what was found.
type Verified struct {
	Verdict Verdict
	// Text says what is wrong; empty if nothing is.
	Text string
	// Stats say how much was looked at.
	Stats layerindex.Stats
}

// Verify holds the files of a layer against its index. It takes as long as reading them
// does; the store may be in use.
//
// Errors are those of ctx, and ErrUnavailable where the file system fails.
func (v *View) Verify(ctx context.Context, l *Layer) (found Verified, err error) {
	if l.External {
		return Verified{Verdict: Elsewhere}, nil
	}
	problems := layerindex.Problems{}
	found.Verdict = Sound
	found.Stats, err = v.looker.VerifyLayer(ctx, l.Number, layerindex.Options{}, problems.Add)
	switch {
	case ctx.Err() != nil:
		return found, ctx.Err()
	case err == nil && len(problems) == 0:
		return found, nil
	}
	// Its files are deleted after its record.
	there, lookErr := v.StillThere(ctx, l)
	switch {
	case lookErr != nil:
		return found, lookErr
	case !there:
		return Verified{Verdict: Removed}, nil
	case errdefs.IsNotFound(err):
		return Verified{Verdict: Unindexed}, nil
	case errdefs.IsDataLoss(err), errdefs.IsFailedPrecondition(err):
		found.Verdict, found.Text = Damaged, "index: "+err.Error()
		return found, nil
	case err != nil:
		return found, fmt.Errorf("layer %d: %w", l.Number, err)
	}
	found.Verdict, found.Text = Damaged, problems.String()
	return found, nil
}

// StillThere reads metadata.db again and says whether it still has the layer. As long as
// it does nothing of the layer has been deleted. Errors are those of Open.
func (v *View) StillThere(ctx context.Context, l *Layer) (bool, error) {
	now, err := metadata.InspectCopy(ctx, v.looker.DatabasePath())
	if err != nil {
		return false, err
	}
	_, there := now.Layers[l.Number] // numbers are never used again
	return there, nil
}
