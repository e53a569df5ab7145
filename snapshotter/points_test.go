// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package snapshotter

import (
	"fmt"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/failpoint"
)

// during calls fn while op waits at p, which it has to come to.
func during(t *testing.T, p failpoint.Point, op func() error, fn func()) {
	t.Helper()
	reached, release := failpoint.Block(p)
	defer failpoint.Reset()
	done := make(chan error, 1)
	go func() { done <- op() }()
	select {
	case <-reached:
		fn()
		release()
		if err := <-done; err != nil {
			t.Error(err)
		}
	case err := <-done:
		t.Errorf("it did not come to %s: %v", p, err)
	}
}

// The layer that Apply, or Commit, found goes before it can refer to it.
func TestLayerThatIsRemovedBeforeItIsAdopted(t *testing.T) {
	for _, p := range []failpoint.Point{failpoint.AdoptRecord, failpoint.CommitAdopt} {
		t.Run(string(p), func(t *testing.T) {
			s, l := openSharing(t, Config{})
			base := l.mustPull(t, s, plain1, 1)[0]
			x := l.extraction(t, s, base, 1, 7)
			apply := func() error { return l.apply(t, s, x.mounts, l.descs[7]) }
			finish := func() error { return s.Commit(ctx, "top", x.key, x.opt) }
			var first []string
			if p == failpoint.AdoptRecord {
				first = l.mustPull(t, s, plain1, 7)
				during(t, p, apply, func() { removeAll(t, s, first) })
				if err := finish(); err != nil {
					t.Fatal(err)
				}
			} else {
				if err := apply(); err != nil {
					t.Fatal(err)
				}
				s.flights = flights{} // as if another blob of the layer had been extracted
				first = l.mustPull(t, s, plain1, 7)
				during(t, p, finish, func() { removeAll(t, s, first) })
			}
			checkStore(t, s)
			if err := l.check(s, "top", []int{1, 7}); err != nil {
				t.Error(err)
			}
			again := l.mustPull(t, s, diffIDs, 7)
			if layerOf(t, s, again[0]) != layerOf(t, s, "top") {
				t.Error("what was extracted instead is not shared")
			}
		})
	}
}

// The patch that a call found goes before its transaction: the call makes one of its own,
// with whatever it was that it was at.
func TestPatchThatIsRemovedBeforeItIsUsed(t *testing.T) {
	for p, how := range map[failpoint.Point]way{
		failpoint.PatchFound: diffIDs, failpoint.CommitReady: plain1, failpoint.CommitRecord: late,
	} {
		t.Run(string(p), func(t *testing.T) {
			s, l := openSharing(t, Config{})
			first := l.mustPull(t, s, plain1, 0, 2)
			kept := l.mustPull(t, s, plain1, 1, 2) // the layer stays
			patch := patchOf(t, s, first[1])
			base := l.mustPull(t, s, plain1, 4, 0)[1]
			x := extraction{key: "default/99/extract-x", opt: snapshots.WithLabels(l.labels([]int{4, 0, 2}, how))}
			name := x.key
			op := func() error {
				_, err := s.Prepare(ctx, x.key, base, x.opt)
				if errdefs.IsAlreadyExists(err) {
					err = nil
				}
				return err
			}
			if how != diffIDs {
				parent := base
				if how == late {
					parent = ""
				}
				if err := l.apply(t, s, prepare(t, s, x.key, parent, x.opt), l.descs[2]); err != nil {
					t.Fatal(err)
				}
				name = "top"
				op = func() error { return s.Commit(ctx, name, x.key, x.opt, snapshots.WithParent(base)) }
			}
			during(t, p, op, func() { mustRemove(t, s, first[1]) })
			checkStore(t, s)
			if got := patchOf(t, s, name); got == patch {
				t.Error("it has the patch that was removed")
			}
			if layerOf(t, s, name) != layerOf(t, s, kept[1]) {
				t.Error("the layer is here twice")
			}
			if err := l.check(s, name, []int{4, 0, 2}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Who makes a patch that is not recorded yet is waited for, and if that fails the next
// makes it.
func TestPatchThatAnotherCallMakes(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint(fails), func(t *testing.T) {
			s, l := openSharing(t, Config{})
			base := l.mustPull(t, s, plain1, 0)[0]
			var xs []extraction
			for range 2 {
				x := l.extraction(t, s, "", 0, 2)
				if err := l.apply(t, s, x.mounts, l.descs[2]); err != nil {
					t.Fatal(err)
				}
				xs = append(xs, x)
			}
			commit := func(i int) error {
				return s.Commit(ctx, fmt.Sprint("top-", i), xs[i].key, xs[i].opt, snapshots.WithParent(base))
			}
			second := make(chan error, 1)
			reached, release := failpoint.Block(failpoint.PatchPlaced)
			defer failpoint.Reset()
			first := make(chan error, 1)
			go func() { first <- commit(0) }()
			<-reached
			if fails {
				mustRemove(t, s, xs[0].key)
			}
			go func() { second <- commit(1) }()
			for s.answers.waiting() == 0 && len(second) == 0 {
				time.Sleep(time.Millisecond)
			}
			if len(second) > 0 {
				t.Error("the second does not wait")
			}
			release()
			if err := <-first; fails != errdefs.IsNotFound(err) {
				t.Errorf("the first: %v", err)
			}
			if err := <-second; err != nil {
				t.Errorf("the second: %v", err)
			}
			if !fails && patchOf(t, s, "top-0") != patchOf(t, s, "top-1") {
				t.Error("each has a patch of its own")
			}
			checkStore(t, s)
			if err := l.check(s, "top-1", []int{0, 2}); err != nil {
				t.Error(err)
			}
		})
	}
}

// waiting is how many calls wait for one of the keys.
func (l *keyLocks) waiting() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.held {
		n += k.users - 1
	}
	return n
}

// Cleanup has no eyes for what is between a rename and its transaction.
func TestCleanupLeavesWhatIsUnderWay(t *testing.T) {
	store := exported(t, crashLayer)
	for p, pull := range map[failpoint.Point]struct {
		how   way
		image []int
	}{
		failpoint.SnapshotPlace:  {plain1, []int{0}},
		failpoint.SnapshotPlaced: {plain1, []int{0}},
		failpoint.LayerPlaced:    {plain1, []int{0}},
		failpoint.CommitRecord:   {plain1, []int{0, 2}},
		failpoint.PatchStage:     {diffIDs, []int{0, 2}},
		failpoint.PatchFound:     {diffIDs, []int{4, 1, 2}},
		failpoint.PatchPlaced:    {diffIDs, []int{0, 2}},
		failpoint.UseRecord:      {diffIDs, []int{0, 7}},
		failpoint.UseRecorded:    {staged, []int{0, 7}},
		failpoint.PromoteRecord:  {late, []int{6}},
		failpoint.CommitAdopted:  {plain1, []int{0}},
		failpoint.ExternalPlace:  {diffIDs, []int{crashLayer}},
		failpoint.ExternalPlaced: {diffIDs, []int{crashLayer}},
	} {
		t.Run(string(p), func(t *testing.T) {
			s, l := openWith(t, Config{AdditionalStores: []string{store}})
			switch {
			case pull.how == diffIDs || pull.how == staged:
				l.mustPull(t, s, plain1, 1, 7)
				l.mustPull(t, s, plain1, 1, 2)
			case p == failpoint.PromoteRecord:
				x := l.extraction(t, s, "", 6)
				if err := l.apply(t, s, x.mounts, l.descs[6]); err != nil {
					t.Fatal(err)
				}
			}
			op := func() error {
				made, err := l.pull(t, s, pull.image, pull.how)
				if err == nil {
					err = l.check(s, made[len(made)-1], pull.image)
				}
				return err
			}
			if p == failpoint.CommitAdopted {
				x := l.extraction(t, s, "", 0)
				if err := l.apply(t, s, x.mounts, l.descs[0]); err != nil {
					t.Fatal(err)
				}
				s.flights = flights{}
				l.mustPull(t, s, plain1, 0)
				op = func() error { return s.Commit(ctx, "top", x.key, x.opt) }
			}
			during(t, p, op, func() {
				if err := s.Cleanup(ctx); err != nil {
					t.Error(err)
				}
			})
			checkStore(t, s)
			l.mustPull(t, s, pull.how, pull.image...)
		})
	}
}
