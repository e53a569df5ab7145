// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func patchOf(t *testing.T, s *Snapshotter, name string) uint64 {
	t.Helper()
	sn, err := s.get(name)
	if err != nil {
		t.Fatal(err)
	}
	if sn.Patch == 0 {
		t.Fatalf("%s has no patch", name)
	}
	return sn.Patch
}

// Chains that say the same of a layer's directory have one patch, in whichever way its
// layer came to them; it is charged to the oldest and goes with the last.
func TestPatchForEachAnswer(t *testing.T) {
	for how := range ways {
		t.Run(fmt.Sprint(how), func(t *testing.T) {
			s, l := openSharing(t, Config{})
			first := l.mustPull(t, s, plain1, 0, 2)
			other := l.mustPull(t, s, how, 1, 2)
			same := l.mustPull(t, s, how, 0, 4, 2)
			twice := l.mustPull(t, s, how, 4, 0, 2, 2)
			patch := patchOf(t, s, first[1])
			if got := patchOf(t, s, other[1]); got == patch {
				t.Error("one patch for two answers")
			}
			for _, name := range []string{same[2], twice[2], twice[3]} {
				if got := patchOf(t, s, name); got != patch {
					t.Errorf("%s has patch %d, and %d says the same", name, got, patch)
				}
			}
			checkStore(t, s)
			mustRemove(t, s, first[1])
			s = reopen(t, s)
			checkStore(t, s)
			if got := patchOf(t, s, l.mustPull(t, s, how, 0, 4, 4, 2)[3]); got != patch {
				t.Error("after a restart the patch is not found")
			}
			for name, image := range map[string][]int{same[2]: {0, 4, 2}, twice[3]: {4, 0, 2, 2}, other[1]: {1, 2}} {
				if err := l.check(s, name, image); err != nil {
					t.Error(err)
				}
			}
			emptyOut(t, s)
			if n := layerDirs(t, s); n != 0 {
				t.Errorf("%d layers of nobody", n)
			}
		})
	}
}

// What is not shared shares no patches either.
func TestPatchesOfPrivateLayers(t *testing.T) {
	s, l := openSharing(t, Config{Sharing: SharingOff})
	a, b := l.mustPull(t, s, plain1, 0, 2), l.mustPull(t, s, plain1, 0, 2)
	if patchOf(t, s, a[1]) == patchOf(t, s, b[1]) {
		t.Error("two private layers have one patch")
	}
}

// A patch whose directory somebody deleted, or whose layer.json can't be read, is given to
// no further chain.
func TestPatchThatIsDamaged(t *testing.T) {
	for name, tc := range map[string]struct {
		path string
		code fsck.Code
	}{"directory": {"fs", fsck.CodeLayerFSMissing}, "layer.json": {"layer.json", fsck.CodeManifestMissing}} {
		t.Run(name, func(t *testing.T) {
			testutil.RequireRoot(t)
			root := filepath.Join(testutil.Tmpfs(t), "root")
			fscktest.AtEnd(t, root)
			fscktest.Damaged(root, tc.code)
			s, err := New(ctx, Config{Root: root, Staging: knowsStaging})
			if err != nil {
				t.Fatal(err)
			}
			l := newLibrary(t)
			s.UseUnpacker(l)
			patch := patchOf(t, s, l.mustPull(t, s, plain1, 0, 2)[1])
			if err := os.RemoveAll(filepath.Join(root, "layers", fmt.Sprint(patch), tc.path)); err != nil {
				t.Fatal(err)
			}
			again := l.mustPull(t, s, diffIDs, 0, 4, 2)
			if got := patchOf(t, s, again[2]); got == patch {
				t.Error("it is in one chain more")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Many chains with two answers at once, the first of each ever: two patches.
func TestPatchesAtOnce(t *testing.T) {
	s, l := openSharing(t, Config{Durability: DurabilityNone})
	bases := []string{l.mustPull(t, s, plain1, 0)[0], l.mustPull(t, s, plain1, 1)[0]}
	const clients = 8
	var xs []extraction
	for i := range clients {
		x := l.extraction(t, s, "", i%2, 2)
		if err := l.apply(t, s, x.mounts, l.descs[2]); err != nil {
			t.Fatal(err)
		}
		xs = append(xs, x)
	}
	var wg sync.WaitGroup
	for i, x := range xs {
		wg.Go(func() {
			if err := s.Commit(ctx, fmt.Sprint("top-", i), x.key, x.opt, snapshots.WithParent(bases[i%2])); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var patches []uint64
	for i := range xs {
		patches = append(patches, patchOf(t, s, fmt.Sprint("top-", i)))
		if err := l.check(s, fmt.Sprint("top-", i), []int{i % 2, 2}); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(patches)
	if got := slices.Compact(patches); len(got) != 2 {
		t.Errorf("patches %v, want two", got)
	}
	checkStore(t, s)
}
