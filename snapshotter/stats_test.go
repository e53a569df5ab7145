// SPDX-License-Identifier: Apache-2.0

package snapshotter

import "testing"

// Each layer that was to be extracted is counted once, by what became of it.
func TestStats(t *testing.T) {
	s, l := openSharing(t, Config{})
	l.mustPull(t, s, plain1, 0, 1)
	bytes := int64(len(l.layers[l.descs[0].Digest]) + len(l.layers[l.descs[1].Digest]))
	want := Stats{Extracted: 2, ExtractedBytes: bytes}
	check := func() {
		t.Helper()
		got := s.Stats()
		got.Stores, got.TrashPending = want.Stores, 0
		if got.Extracted != want.Extracted || got.ExtractedBytes != bytes || got.Shared != want.Shared || got.Staged != want.Staged || got.Adopted != want.Adopted {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	check()
	l.mustPull(t, s, diffIDs, 1, 0)
	want.Shared = 2
	check()
	l.mustPull(t, s, staged, 1) // that chain is there: nothing is to be done
	check()
	l.mustPull(t, s, plain1, 0) // so is this one, whatever is said of it
	check()
	l.mustPull(t, s, plain1, 0, 0)
	want.Adopted = 1
	check()
	l.mustPull(t, s, staged, 0, 1)
	want.Staged = 1
	check()
	if err := s.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	if n := s.Stats().TrashPending; n != 0 {
		t.Errorf("%d directories are pending in an empty trash", n)
	}
}
