// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/metadata"
)

// rooms is an ahead without a snapshotter.
func rooms(t *testing.T, layers int) *ahead {
	t.Helper()
	a := newAhead(layers, func([]*aheadEntry) {})
	t.Cleanup(func() { a.close() })
	return a
}

func hasRoom(t *testing.T, a *ahead) (*aheadEntry, bool) {
	t.Helper()
	e, _, err := a.tryBegin(AheadLayer{})
	if err != nil {
		t.Fatal(err)
	}
	return e, e != nil
}

// As many extractions are under way as are allowed, whoever asked for them.
func TestAheadRunsFewAtOnce(t *testing.T) {
	a := rooms(t, 1)
	leave := a.enter()
	e, ok := hasRoom(t, a)
	if !ok {
		t.Fatal("no room beside one that was asked for")
	}
	if _, ok := hasRoom(t, a); ok {
		t.Error("room for a third one")
	}
	waiting := make(chan *aheadEntry, 1)
	go func() {
		e, err := a.begin(t.Context(), AheadLayer{})
		if err != nil {
			t.Error(err)
		}
		waiting <- e
	}()
	leave()
	leave() // counts once
	a.ended(<-waiting)
	last, ok := hasRoom(t, a)
	if !ok {
		t.Fatal("no room when two are gone")
	}
	a.ended(e)
	a.ended(last)
}

// No more is begun while much waits to be asked for.
func TestAheadKeepsFew(t *testing.T) {
	for name, test := range map[string]struct {
		most int
		size int64
	}{"layers": {maxAhead, 1}, "bytes": {2, maxAheadBytes / 2}} {
		t.Run(name, func(t *testing.T) {
			a := rooms(t, 1)
			var last *aheadEntry
			for range test.most {
				e, ok := hasRoom(t, a)
				if !ok {
					t.Fatal("no room")
				}
				a.land(e, landing{layer: metadata.Layer{Number: 1, Usage: snapshots.Usage{Size: test.size}}, end: func() {}})
				a.ended(e)
				last = e
			}
			if _, ok := hasRoom(t, a); ok {
				t.Error("room for one more")
			}
			got, again := a.take(t.Context(), func(e *aheadEntry) bool { return e == last })
			if got != last || again {
				t.Fatalf("took %v, %v", got, again)
			}
			if _, ok := hasRoom(t, a); ok {
				t.Error("room before it is recorded")
			}
			a.release(got)
			e, ok := hasRoom(t, a)
			if !ok {
				t.Fatal("no room for another one")
			}
			a.ended(e)
		})
	}
}

func TestAheadGivesUpWaiting(t *testing.T) {
	a := rooms(t, 0)
	defer a.enter()()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.begin(ctx, AheadLayer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	go a.close()
	if _, err := a.begin(t.Context(), AheadLayer{}); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v", err)
	}
}

// What nobody asked for goes after a while, unless something is going on.
func TestAheadExpires(t *testing.T) {
	s, l := openAhead(t, Config{})
	l.ahead(t, s, 7)
	long := func() {
		s.ahead.mu.Lock()
		defer s.ahead.mu.Unlock()
		s.ahead.touched = time.Now().Add(-2 * keepAhead)
	}
	s.ahead.expire() // it is new
	leave := s.ahead.enter()
	long()
	s.ahead.expire() // somebody works
	if n := layerDirs(t, s); n != 1 || !s.ahead.has(l.descs[7].Digest) {
		t.Errorf("%d layers, want 1", n)
	}
	leave()
	gaveUp := 0
	end := s.Follow("default", []digest.Digest{"sha256:a", "sha256:b"}, func() { gaveUp++ })
	long()
	s.ahead.expire() // there is more to come
	if n := layerDirs(t, s); n != 1 {
		t.Errorf("%d layers, want 1", n)
	}
	for ref, want := range map[string]int{"sha256:x": 0, "sha256:b": 1} {
		prepare(t, s, "default/9/extract-x", "", labels(snapshots.LabelSnapshotRef, ref))
		prepare(t, s, "other/9/extract-x", "", labels(snapshots.LabelSnapshotRef, ref))
		before := gaveUp
		mustRemove(t, s, "default/9/extract-x", "other/9/extract-x")
		if gaveUp-before != want {
			t.Errorf("%s: gave up %d times, want %d", ref, gaveUp-before, want)
		}
	}
	end(nil)
	long()
	s.ahead.expire()
	if n := layerDirs(t, s); n != 0 || s.ahead.has(l.descs[7].Digest) {
		t.Errorf("%d layers, want none", n)
	}
	if got := s.Stats(); got.AheadDropped != 1 {
		t.Errorf("%+v", got)
	}
	s.ahead.expire()
	l.mustPull(t, s, diffIDs, 7)
}

// One wait for the disk serves all layers that are in their place by then.
func TestAheadSyncsTogether(t *testing.T) {
	a := rooms(t, 1)
	place := func() *aheadEntry {
		e, _ := hasRoom(t, a)
		a.land(e, landing{layer: metadata.Layer{Number: 1, DiffID: digest.FromString("x")}, end: func() {}})
		a.ended(e)
		return e
	}
	first, second := place(), place()
	var third *aheadEntry
	syncs := 0
	sync := func() error { syncs++; return nil }
	failed := errors.New("failed")
	if err := a.sync(first, func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if err := a.sync(first, func() error { third = place(); return sync() }); err != nil {
		t.Error(err)
	}
	if err := a.sync(second, sync); err != nil || syncs != 1 {
		t.Errorf("%d syncs, %v", syncs, err)
	}
	if err := a.sync(third, sync); err != nil || syncs != 2 {
		t.Errorf("%d syncs for one that came meanwhile, %v", syncs, err)
	}
}
