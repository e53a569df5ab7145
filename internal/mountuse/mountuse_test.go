// SPDX-License-Identifier: Apache-2.0

package mountuse

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestOverlayDirs(t *testing.T) {
	roots := []string{"/r", "/alias"}
	for options, want := range map[string][]string{
		"rw,lowerdir=/r/layers/3/fs:/r/layers/2/fs,upperdir=/r/snapshots/9/fs,workdir=/r/snapshots/9/work": {"layers/2", "layers/3", "snapshots/9"},
		"rw,lowerdir+=/alias/layers/7/fs,lowerdir+=/r/empty":                                               {"layers/7"},
		"rw,lowerdir=3/fs:2/fs,upperdir=/r/snapshots/9/fs":                                                 {"layers/2", "layers/3", "snapshots/9"},
		"rw,lowerdir=3/fs:2/fs":                   nil, // of any root
		"rw,lowerdir=/other/layers/3/fs":          nil,
		"rw,lowerdir=/r/layers/3/fs/inside":       nil,
		"rw,upperdir=/rr/snapshots/1/fs,index=on": nil,
	} {
		if got := slices.Sorted(maps.Keys(overlayDirs(options, roots))); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", options, got, want)
		}
	}
}

func TestOf(t *testing.T) {
	testutil.RequireRoot(t)
	root, target := testutil.Tmpfs(t), t.TempDir()
	for _, dir := range []string{"layers/1/fs", "layers/2/fs"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	testutil.MountAll(t, []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + root + "/layers/1/fs:" + root + "/layers/2/fs"}}}, target)
	for _, given := range []string{root, link} {
		used, err := Of([]string{given})
		if err != nil || !slices.Equal(used["layers/1"], []string{target}) || !slices.Equal(used["layers/2"], []string{target}) || len(used) != 2 {
			t.Errorf("%s: %v, %v", given, used, err)
		}
	}
}
