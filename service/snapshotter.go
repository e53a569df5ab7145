// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/extstore"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// Opening is what a snapshotter is opened with.
type Opening struct {
	// Root is the absolute path of the root directory.
	Root    string
	Options config.Snapshotter
	// Limits bound the layers that are extracted into its snapshots.
	Limits config.Limits
	// Staging says whether containerd knows staged snapshots; nil means no.
	Staging func(context.Context) bool
}

// OpenSnapshotter opens a snapshotter. The daemon and the plugin inside containerd
// both come through here, so that an option means the same in both.
//
// Errors are InvalidArgument for options that are wrong, and whatever class
// snapshotter.New gives.
func OpenSnapshotter(ctx context.Context, o Opening) (*snapshotter.Snapshotter, error) {
	options := o.Options
	if err := options.Validate(); err != nil {
		return nil, fmt.Errorf("snapshotter options: %w", err)
	}
	if err := o.Limits.Validate(); err != nil {
		return nil, fmt.Errorf("limits of the snapshotter: %w", err)
	}
	return snapshotter.New(ctx, snapshotter.Config{
		Root:             o.Root,
		SyncRemove:       options.SyncRemove,
		UpperdirLabel:    options.UpperdirLabel,
		SlowChown:        options.SlowChown,
		IDMapping:        snapshotter.IDMapping(options.IDMappedMounts),
		MountOptions:     options.MountOptions,
		MountProgram:     snapshotter.MountProgram(options.MountProgram),
		Durability:       snapshotter.Durability(options.Durability),
		Sharing:          snapshotter.Sharing(options.Sharing),
		Staging:          o.Staging,
		UnpackAhead:      options.UnpackAhead,
		AdditionalStores: options.AdditionalStores,
		Verify:           extstore.Verify(options.Verify),
		Limits:           layerLimits(o.Limits),
		Ownership:        snapshotter.Ownership(options.Ownership),
	})
}

// StagingOf is Opening.Staging for a containerd of a known version.
func StagingOf(version string) func(context.Context) bool {
	known := diff.VersionKnowsStaged(version)
	return func(context.Context) bool { return known }
}
