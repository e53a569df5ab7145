// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/log"

	"github.com/strata-snapshotter/strata/metadata"
)

// above is a layer ahead that comes next on a chain. It is recorded in the transaction of
// the layer that was asked for, under a name that containerd, which looks for the label
// snapshot.ref, learns when it asks for this one. So all that are there take one transaction,
// and one wait for the disk. Those that it does not come to are not in containerd's metadata,
// and its garbage collection removes what is not as soon as any snapshot was removed, as the
// extraction of whoever gave up is.
type above struct {
	*aheadEntry
	share metadata.Share
}

// takeAbove takes out the layers that come next on top of chain ref, and asks nothing of those
// below: those that do are answered when they are asked for.
func (s *Snapshotter) takeAbove(ctx context.Context, ns, ref string, f found) (list []*above) {
	if s.ahead.sync(f.ahead, s.store.SyncLayers) != nil { // and with it, mostly, those above
		return nil // tried again, and told, when f is used
	}
	below := f.layer
	for {
		if s.checkRoot([]metadata.Layer{below}) != nil {
			return list // the next layer would have to look like this one
		}
		e := s.ahead.takeNext(ns, ref)
		if e == nil {
			return list
		}
		n, err := s.meta.Reserve(ctx)
		if err == nil {
			err = s.ahead.sync(e, s.store.SyncLayers)
		}
		if err != nil {
			log.G(ctx).WithError(err).WithField("diffID", e.DiffID).Debug("a layer ahead is left for when it is asked for")
			s.drop(ctx, s.foundAhead(e))
			return list
		}
		ref, below = e.ChainID.String(), e.layer
		list = append(list, &above{aheadEntry: e, share: metadata.Share{
			Create: metadata.Create{
				Number: n, Key: fmt.Sprintf("%s/0/extract-%d-ahead %s", ns, n, ref),
				Labels: map[string]string{snapshots.LabelSnapshotRef: ref, snapshots.LabelSnapshotDiffID: e.DiffID.String()},
			},
			Layer: e.layer,
		}})
	}
}

// recordAbove records the layers of a list on the snapshot parent, which is of this
// transaction: nothing can be on top of it yet.
func recordAbove(tx *metadata.Tx, parent string, list []*above) (err error) {
	for _, a := range list {
		a.share.Parent, parent = parent, a.share.Key
		if a.share.Layer, err = tx.AddLayer(a.layer); err != nil {
			return err
		}
		if err := tx.BindBlob(a.Blob.Digest, a.DiffID); err != nil {
			return err
		}
		if _, err := tx.Share(a.share); err != nil {
			return err
		}
	}
	return nil
}

// endAbove is called after the transaction. If it failed the layers are there for who asks for
// them.
func (s *Snapshotter) endAbove(ctx context.Context, list []*above, err error) {
	for _, a := range list {
		f := s.foundAhead(a.aheadEntry)
		if err != nil && !inDoubt(err) {
			s.drop(ctx, f)
			continue
		}
		if err == nil {
			s.counts.ahead.Add(1)
			if a.share.Layer.Number != a.layer.Number { // somebody else's was recorded meanwhile
				s.trashLayers(ctx, []uint64{a.layer.Number})
			}
		}
		f.end()
	}
}
