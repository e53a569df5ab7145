// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// OpenSnapshotter opens the snapshotter with its root at the absolute path
// root. The daemon and the plugin inside containerd both come through here,
// so that an option means the same in both.
//
// Errors are InvalidArgument for options that are wrong, and whatever class
// snapshotter.New gives.
func OpenSnapshotter(ctx context.Context, root string, options config.Snapshotter) (*snapshotter.Snapshotter, error) {
	if err := options.Validate(); err != nil {
		return nil, fmt.Errorf("snapshotter options: %w", err)
	}
	return snapshotter.New(ctx, snapshotter.Config{
		Root:          root,
		SyncRemove:    options.SyncRemove,
		UpperdirLabel: options.UpperdirLabel,
		SlowChown:     options.SlowChown,
		IDMapping:     snapshotter.IDMapping(options.IDMappedMounts),
		MountOptions:  options.MountOptions,
		Durability:    snapshotter.Durability(options.Durability),
	})
}
