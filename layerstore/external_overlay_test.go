// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// publishLayer makes a layer of our own with files in it.
func publishLayer(t *testing.T, s *Store, n uint64, files ...string) {
	t.Helper()
	makeSnapshot(t, s, n)
	for _, f := range files {
		write(t, filepath.Join(s.UpperPath(n), f), "of layer "+name(n))
	}
	if err := s.Publish(n, Content{}); err != nil {
		t.Fatal(err)
	}
}

// stacked shows a stack as containerd would mount it.
func stacked(t *testing.T, s *Store, uidmap string, numbers []uint64) string {
	t.Helper()
	makeSnapshot(t, s, 1000)
	plan := overlayutil.Plan{Upper: s.UpperPath(1000), Work: s.WorkPath(1000), Empty: s.EmptyPath(), UIDMap: uidmap, GIDMap: uidmap}
	for _, n := range numbers {
		plan.Lowers = append(plan.Lowers, s.LayerPath(n))
	}
	mounts, err := plan.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	testutil.MountAll(t, mounts, target)
	return target
}

// A stack with external layers in it mounts as any other: as it is, when
// containerd has to shorten its options, and with mapped ids.
func TestStackWithExternals(t *testing.T) {
	for what, tc := range map[string]struct {
		uidmap string
		fill   int
	}{"plain": {}, "long options": {"", 200}, "mapped ids": {"0:100000:65536", 0}, "mapped ids and long options": {"0:100000:65536", 60}} {
		t.Run(what, func(t *testing.T) {
			for fs, dir := range map[string]func(testing.TB) string{
				"the same file system": func(t testing.TB) string { return t.TempDir() }, "another": testutil.Tmpfs,
			} {
				t.Run(fs, func(t *testing.T) { checkStack(t, dir(t), tc.uidmap, tc.fill) })
			}
		})
	}
}

func checkStack(t *testing.T, dir, uidmap string, fill int) {
	ext := additionalStore(t, dir)
	ext.MapIDs = uidmap != ""
	s := openExternal(t)
	defer shut(t, s)
	publishLayer(t, s, 1, "gone", "below", "external")
	addExternal(t, s, 2, ext)
	publishLayer(t, s, 3, "above", "d/above")
	numbers := []uint64{3, 2}
	for n := range fill {
		publishLayer(t, s, uint64(n+10), name(uint64(n)))
		numbers = append(numbers, uint64(n+10))
	}
	root := stacked(t, s, uidmap, append(numbers, 1))
	if got := names(t, root); len(got) != fill+4 {
		t.Errorf("the mount shows %v", got)
	}
	if got := names(t, root+"/d"); !reflect.DeepEqual(got, []string{"above", "owned"}) {
		t.Errorf("the mount shows %v", got)
	}
	if b, err := os.ReadFile(root + "/external"); err != nil || string(b) != "of the store" {
		t.Errorf("%q, %v", b, err)
	}
	want := [2]uint32{5, 7}
	if uidmap != "" {
		want = [2]uint32{100005, 100007}
	}
	var st unix.Stat_t
	if err := unix.Stat(root+"/d/owned", &st); err != nil || [2]uint32{st.Uid, st.Gid} != want {
		t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
	}
	// A container that is running keeps what it has.
	if err := s.TrashLayer(2); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(root + "/external"); err != nil || string(b) != "of the store" {
		t.Errorf("after the layer went: %q, %v", b, err)
	}
	if uidmap == "" {
		write(t, root+"/external", "changed") // copied up
		write(t, root+"/d/owned", "changed")
	}
	intact(t, ext)
	if err := mount.UnmountAll(root, 0); err != nil {
		t.Error(err)
	}
}
