// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// charges is what all snapshots together are charged for layers.
func charges(s *Snapshotter) (sum snapshots.Usage, err error) {
	err = s.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		sn, err := s.get(info.Name)
		if err != nil || sn.Layer == 0 {
			return err
		}
		u, err := s.Usage(ctx, info.Name)
		sum.Add(u)
		return err
	})
	return sum, err
}

// du is what the directories of layers take.
func du(s *Snapshotter) (sum snapshots.Usage, err error) {
	layers, err := filepath.Glob(filepath.Join(s.cfg.Root, "layers/*/fs"))
	if err != nil {
		return sum, err
	}
	seen := map[uint64]bool{}
	for _, layer := range layers {
		err := filepath.WalkDir(layer, func(path string, _ fs.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil {
				err = unix.Lstat(path, &st)
			}
			if err != nil || seen[st.Ino] {
				return err
			}
			seen[st.Ino] = true
			sum.Add(snapshots.Usage{Size: st.Blocks * 512, Inodes: 1})
			return nil
		})
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// Each byte is charged to one snapshot, whatever is pulled, removed and committed in
// whatever order.
func TestUsageIsWhatTheDiskHolds(t *testing.T) {
	testutil.RequireRoot(t)
	tmp := testutil.Tmpfs(t)
	rapid.Check(t, func(rt *rapid.T) {
		root, err := os.MkdirTemp(tmp, "root")
		if err != nil {
			rt.Fatal(err)
		}
		s, err := New(ctx, Config{Root: root, Staging: knowsStaging, Durability: DurabilityNone})
		if err != nil {
			rt.Fatal(err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				rt.Error(err)
			}
			fscktest.Clean(rt, root)
		}()
		l := newLibrary(t)
		s.UseUnpacker(l)
		u := &usageRun{t: t, s: s, l: l}
		for range rapid.IntRange(1, 8).Draw(rt, "steps") {
			if err := u.step(rt); err != nil {
				rt.Fatal(err)
			}
			got, err := charges(s)
			if err != nil {
				rt.Fatal(err)
			}
			if want, err := du(s); err != nil || got != want {
				rt.Fatalf("charged %+v, on disk %+v (%v)", got, want, err)
			}
		}
	})
}

type usageRun struct {
	t     *testing.T
	s     *Snapshotter
	l     library
	names []string
}

func (u *usageRun) step(rt *rapid.T) error {
	pieceOf := rapid.IntRange(0, len(pieces)-1)
	how := way(rapid.IntRange(0, int(ways)-1).Draw(rt, "how"))
	switch rapid.SampledFrom([]string{"pull", "pull", "stage", "write", "remove", "remove"}).Draw(rt, "step") {
	case "pull":
		made, err := u.l.pull(u.t, u.s, rapid.SliceOfN(pieceOf, 1, 4).Draw(rt, "image"), how)
		u.names = append(u.names, made...)
		return err
	case "stage": // a pull that stops before its Commit
		image := []int{pieceOf.Draw(rt, "below"), pieceOf.Draw(rt, "piece")}
		p := &pulled{key: fmt.Sprintf("default/%d/extract-x", u.l.counter.Add(1)), labels: u.l.labels(image, how), desc: u.l.descs[image[1]]}
		u.names = append(u.names, p.key)
		return u.l.fetch(u.t, u.s, p, "")
	case "write":
		key := fmt.Sprintf("c-%d", u.l.counter.Add(1))
		prepare(u.t, u.s, key, "")
		write(u.t, filepath.Join(upper(u.t, u.s, key), "f"), key)
		u.names = append(u.names, key+"-done")
		return u.s.Commit(ctx, key+"-done", key)
	}
	if len(u.names) == 0 {
		return nil
	}
	i := rapid.IntRange(0, len(u.names)-1).Draw(rt, "name")
	// It may have children, or have been removed under a name that it was found by.
	if u.s.Remove(ctx, u.names[i]) == nil {
		u.names = slices.Delete(u.names, i, i+1)
	}
	return nil
}
