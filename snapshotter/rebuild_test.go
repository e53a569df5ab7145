// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// After a power cut, what was answered before it is in the log as well: metadata.db can be
// lost with the power, and all that was answered is back.
func TestLogSurvivesAPowerCut(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			testutil.RequireRoot(t)
			dir := testutil.LoopFS(t, fstype, 400)
			root := filepath.Join(dir, "root")
			s := openRoot(t, root)
			commitLayer(t, s, "base", "")
			for i := range 40 {
				prepare(t, s, fmt.Sprint("work-", i), "base", labels("label", fmt.Sprint(i)))
				if i%4 == 3 {
					mustRemove(t, s, fmt.Sprint("work-", i-1))
				}
			}
			testutil.CutPower(t, dir, func() { _ = s.Close() }) // its disk is gone
			if err := os.Remove(filepath.Join(root, "metadata.db")); err != nil {
				t.Fatal(err)
			}
			r, err := fsck.Rebuild(ctx, fsck.Options{Root: root}, func(*fsck.Rebuilt) bool { return true })
			if err != nil || len(r.Rebuilt.Lost) > 0 || r.Worst() == fsck.Damage {
				t.Fatalf("%v, %+v", err, r)
			}
			s = openRoot(t, root)
			defer closeRoot(t, s)
			for i := range 40 {
				info, err := s.Stat(ctx, fmt.Sprint("work-", i))
				if gone := i%4 == 2; gone != (err != nil) || !gone && (info.Labels["label"] != fmt.Sprint(i) || info.Kind != snapshots.KindActive) {
					t.Errorf("snapshot %d: %+v, %v", i, info, err)
				}
			}
			checkStore(t, s)
		})
	}
}
