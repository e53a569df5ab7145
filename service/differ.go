// SPDX-License-Identifier: Apache-2.0

package service

import (
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// OpenDiffer makes the differ for the snapshotter sn with its root at the absolute
// path root. The daemon and the plugin inside containerd both come through here.
// sn may be nil: the differ then knows no snapshots of its own.
func OpenDiffer(services diff.Services, sn snapshots.Snapshotter, root string) *diff.Differ {
	own, ok := sn.(*snapshotter.Snapshotter)
	if !ok {
		return diff.New(diff.Config{Services: services, Owns: below(root)})
	}
	d := diff.New(diff.Config{Services: services, Staging: staging{own}, Owns: below(root)})
	own.UseUnpacker(d)
	return d
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
