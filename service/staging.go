// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"os"

	"github.com/containerd/containerd/v2/core/mount"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// staging is the snapshotter as the differ sees it.
type staging struct{ *snapshotter.Snapshotter }

// Stage implements diff.Staging.
func (s staging) Stage(ctx context.Context, mounts []mount.Mount, blob ocispec.Descriptor) (diff.Stage, error) {
	stage, err := s.Snapshotter.Stage(ctx, mounts, blob)
	if err != nil {
		return nil, err // a nil *snapshotter.Stage would be a diff.Stage that is not nil
	}
	return stage, nil
}

// Ahead implements diff.Ahead.
func (s staging) Ahead(ctx context.Context, l diff.AheadLayer, extract func(context.Context, *os.File, archive.Options) (archive.Result, error)) error {
	return s.Snapshotter.Ahead(ctx, snapshotter.AheadLayer(l), extract)
}
