// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// OpenDiffer makes the differ for the snapshotter sn with its root at the absolute
// path root. The daemon and the plugin inside containerd both come through here.
// sn may be nil: the differ then knows no snapshots of its own. limits bound layers
// that are extracted elsewhere than into sn, which has its own. It is to be closed before
// the snapshotter.
//
// The error is InvalidArgument: a limit is wrong.
func OpenDiffer(services diff.Services, sn snapshots.Snapshotter, root string, limits config.Limits) (*diff.Differ, error) {
	if err := limits.Validate(); err != nil {
		return nil, fmt.Errorf("limits of the differ: %w", err)
	}
	cfg := diff.Config{Services: services, Owns: below(root), Limits: layerLimits(limits)}
	own, ok := sn.(*snapshotter.Snapshotter)
	if !ok {
		return diff.New(cfg), nil
	}
	cfg.Staging, cfg.Ahead = staging{own}, staging{own}
	d := diff.New(cfg)
	own.UseUnpacker(d)
	return d, nil
}

// below says whether a directory is in root. Mounts may name it by a link that the
// snapshotter made because of a character in root's own path.
func below(root string) func(string) bool {
	real, err := filepath.EvalSymlinks(root)
	if root == "" || err != nil {
		return func(string) bool { return false }
	}
	return func(path string) bool {
		path, err := filepath.EvalSymlinks(path)
		return err == nil && strings.HasPrefix(path, real+"/")
	}
}
