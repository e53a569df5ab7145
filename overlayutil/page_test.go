// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// makeLayers makes n layer directories, each with a file of its own, and the
// other directories of a plan. The format has one %d for the layer's number.
func makeLayers(t *testing.T, root, format string, n int) Plan {
	t.Helper()
	plan := Plan{
		Empty: mkdir(t, root+"/empty"),
		Upper: mkdir(t, root+"/upper"),
		Work:  mkdir(t, root+"/work"),
	}
	for i := range n {
		dir := mkdir(t, filepath.Join(root, fmt.Sprintf(format, i)))
		write(t, fmt.Sprintf("%s/f%d", dir, i))
		plan.Lowers = append(plan.Lowers, dir)
	}
	return plan
}

// mountedLayers mounts with containerd's mount code and counts the layers that
// are there; -1 when the mount fails.
func mountedLayers(t *testing.T, mounts []mount.Mount) int {
	t.Helper()
	target := t.TempDir()
	if err := mount.All(mounts, target); err != nil {
		return -1
	}
	defer func() {
		if err := mount.UnmountAll(target, 0); err != nil {
			t.Error(err)
		}
	}()
	return len(names(t, target))
}

// unchecked are the mounts that a plan would have if nothing were refused.
func unchecked(p Plan) []mount.Mount {
	options := append(p.mapOptions(), p.data(escapeAll(p.stack()))...)
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
}

func TestFiveHundredLowers(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	testutil.CheckNoMounts(t, root)
	plan := makeLayers(t, root, "%d", MaxLowers+1)
	if _, err := plan.Mounts(); err == nil {
		t.Fatal("501 lowers accepted")
	}
	if got := mountedLayers(t, unchecked(plan)); got != -1 {
		t.Fatalf("the kernel takes 501 lowers (%d there): MaxLowers is too small", got)
	}
	plan.Lowers = plan.Lowers[:MaxLowers]
	mounts, err := plan.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	if got := mountedLayers(t, mounts); got != MaxLowers {
		t.Fatalf("%d of %d layers are there", got, MaxLowers)
	}
}

// TestNoLayerLost finds for roots of different lengths the longest stack that is
// accepted. It must mount completely; one layer more must not have.
func TestNoLayerLost(t *testing.T) {
	testutil.RequireRoot(t)
	for _, tc := range []struct {
		name   string
		extra  int
		format string
		idMap  string
	}{
		{"short", 0, "%d", ""},
		{"usual", 20, "layers/%d/fs", ""},
		{"usual mapped", 20, "layers/%d/fs", testMap},
		{"long root", 200, "layers/%d/fs", ""},
		{"long root mapped", 200, "layers/%d/fs", testMap},
		{"very long root", 230, "a/b/c/layers/%d/fs", ""},
		{"long names", 100, "layer-with-a-very-long-name-%d/fs", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base := t.TempDir()
			testutil.CheckNoMounts(t, base)
			root := mkdir(t, filepath.Join(base, "r"+strings.Repeat("x", tc.extra)))
			plan := makeLayers(t, root, tc.format, MaxLowers)
			plan.UIDMap, plan.GIDMap = tc.idMap, tc.idMap
			useTempMounts(t)
			checkLongest(t, plan)
		})
	}
}

func checkLongest(t *testing.T, all Plan) {
	t.Helper()
	accepted := 0
	for n := 1; n <= len(all.Lowers); n++ {
		plan := all
		plan.Lowers = all.Lowers[:n]
		_, err := plan.Mounts()
		if err == nil && accepted != n-1 {
			t.Fatalf("%d layers accepted after %d were the most", n, accepted)
		}
		if err == nil {
			accepted = n
		}
	}
	if accepted < 100 {
		t.Fatalf("only %d layers accepted", accepted)
	}
	plan := all
	plan.Lowers = all.Lowers[:accepted]
	mounts, err := plan.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	if got := mountedLayers(t, mounts); got != accepted {
		t.Fatalf("%d of %d layers are there", got, accepted)
	}
	if accepted == len(all.Lowers) {
		return
	}
	plan.Lowers = all.Lowers[:accepted+1]
	if got := mountedLayers(t, unchecked(plan)); got == accepted+1 {
		t.Fatalf("%d layers are refused but mount", got)
	}
	t.Logf("%d layers accepted", accepted)
}

// useTempMounts gives containerd's mount code a directory of the test's own for
// its id-mapped copies, where one that is left behind is noticed. The path is
// short: what it adds must not be what decides.
func useTempMounts(t *testing.T) {
	t.Helper()
	dir, err := os.MkdirTemp("", "m")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
		if err := mount.SetTempMountLocation(os.TempDir()); err != nil {
			t.Error(err)
		}
	})
	testutil.CheckNoMounts(t, dir)
	if err := mount.SetTempMountLocation(dir); err != nil {
		t.Fatal(err)
	}
}

func TestMappedOwners(t *testing.T) {
	testutil.RequireRoot(t)
	root := t.TempDir()
	testutil.CheckNoMounts(t, root)
	if f := ProbeIDMap(root); f.Answer != Yes {
		t.Skipf("skipped: no id-mapped layers here: %v", f.Reason)
	}
	useTempMounts(t)
	plan := makeLayers(t, root, "layers/%d/fs", 3)
	plan.UIDMap, plan.GIDMap = testMap, testMap
	for n := 1; n <= 3; n++ {
		part := plan
		part.Lowers = plan.Lowers[:n]
		mounts, err := part.Mounts()
		if err != nil {
			t.Fatal(err)
		}
		target := t.TempDir()
		testutil.MountAll(t, mounts, target)
		var st unix.Stat_t
		if err := unix.Lstat(target+"/f0", &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 100000 || st.Gid != 100000 {
			t.Fatalf("%d layers: owner %d:%d", n, st.Uid, st.Gid)
		}
		if err := mount.UnmountAll(target, 0); err != nil {
			t.Fatal(err)
		}
	}
}
