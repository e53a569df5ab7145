// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
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
