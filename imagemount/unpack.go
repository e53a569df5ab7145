// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// unpack makes the snapshot of a layer on top of the chain, as containerd's unpacker does.
// A layer that is here already is not extracted.
func (m *Manager) unpack(ctx context.Context, chain digest.Digest, layer ocispec.Descriptor, diffID digest.Digest) (err error) {
	ids := []digest.Digest{diffID}
	if chain != "" {
		ids = []digest.Digest{chain, diffID} // a chainID of chainIDs is one of all of them
	}
	name := identity.ChainID(ids).String()
	sn := m.store.Snapshotter()
	if _, err := sn.Stat(ctx, name); err == nil {
		return nil
	}
	key := fmt.Sprintf(snapshots.UnpackKeyFormat, newName(), name)
	opts := map[string]string{snapshots.LabelSnapshotRef: name}
	mounts, err := sn.Prepare(ctx, key, chain.String(), snapshots.WithLabels(maps.Clone(opts)))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, sn.Remove(context.WithoutCancel(ctx), key))
		}
	}()
	applied, err := m.store.Differ().Apply(ctx, layer, mounts)
	if err != nil {
		return err
	}
	if applied.Digest != diffID {
		return fmt.Errorf("layer %s has the diffID %s, not %s: %w", layer.Digest, applied.Digest, diffID, errdefs.ErrDataLoss)
	}
	opts[labels.LabelUncompressed] = diffID.String()
	return sn.Commit(ctx, name, key, snapshots.WithLabels(opts))
}
