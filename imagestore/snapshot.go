// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	bolt "go.etcd.io/bbolt"
)

// SnapshotName is the name that Strata's own snapshotter has for the snapshot that
// containerd's metadata calls key. ErrNotFound: there is none.
func (s *Store) SnapshotName(_ context.Context, key string) (name string, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		// v1/NAMESPACE/snapshots/SNAPSHOTTER/KEY/name, see containerd's core/metadata.
		b := tx.Bucket([]byte("v1"))
		for _, part := range []string{Namespace, "snapshots", SnapshotterName, key} {
			if b != nil {
				b = b.Bucket([]byte(part))
			}
		}
		if b != nil {
			name = string(b.Get([]byte("name")))
		}
		return nil
	})
	if err == nil && name == "" {
		err = fmt.Errorf("snapshot %q: %w", key, errdefs.ErrNotFound)
	}
	return name, err
}

// chainOf is the chainID of layers; without any there is none.
func chainOf(diffIDs []digest.Digest) digest.Digest {
	if len(diffIDs) == 0 {
		return ""
	}
	return identity.ChainID(diffIDs)
}

// removeTree removes a snapshot and the committed ones on top of it.
//
// ErrFailedPrecondition: an active snapshot or a view stands on them; nothing is removed.
func (s *Store) removeTree(ctx context.Context, key string) error {
	children := map[string][]snapshots.Info{}
	err := s.Snapshotter().Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		children[info.Parent] = append(children[info.Parent], info)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	tree := []string{key}
	for i := 0; i < len(tree); i++ {
		for _, child := range children[tree[i]] {
			if child.Kind != snapshots.KindCommitted {
				return fmt.Errorf("snapshot %q stands on a layer that is gone, remove it first: %w", child.Name, errdefs.ErrFailedPrecondition)
			}
			tree = append(tree, child.Name)
		}
	}
	for i := len(tree) - 1; i >= 0; i-- {
		if err := s.Snapshotter().Remove(ctx, tree[i]); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove snapshot %q: %w", tree[i], err)
		}
	}
	// That took the names away. The snapshots themselves go now, with others on them
	// that lost their names before: they would be found again, and taken for whole.
	if _, err := s.db.GarbageCollect(ctx); err != nil {
		return fmt.Errorf("remove snapshot %q: %w", key, err)
	}
	return nil
}

// RemoveSnapshot removes a snapshot at once. Snapshotter().Remove takes its name away
// only: what it was on stays until GC, and would be found again under that.
//
// ErrFailedPrecondition: something stands on it, which may be a snapshot that lost its
// name and waits for GC. One that is not there is no error.
func (s *Store) RemoveSnapshot(ctx context.Context, key string) error {
	ctx = s.Context(ctx)
	name, err := s.SnapshotName(ctx, key)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err == nil {
		err = s.Snapshotter().Remove(ctx, key)
	}
	if err == nil {
		err = s.own.Remove(ctx, name)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove snapshot %q: %w", key, err)
	}
	return nil
}
