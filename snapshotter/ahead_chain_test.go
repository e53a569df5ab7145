// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// snapshotNames lists all snapshots, sorted.
func snapshotNames(t *testing.T, s *Snapshotter) (names []string) {
	t.Helper()
	err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// askFor prepares the topmost layer of an image, which is there, and returns its snapshot.
func (l library) askFor(t *testing.T, s *Snapshotter, parent string, image ...int) string {
	t.Helper()
	key := "default/9/extract-x " + l.chainID(image)
	if _, err := s.Prepare(ctx, key, parent, snapshots.WithLabels(l.labels(image, diffIDs))); !errdefs.IsAlreadyExists(err) {
		t.Fatalf("%v: %v", image, err)
	}
	found, err := findRef(s, l.chainID(image), parent)
	if err != nil || len(found) != 1 {
		t.Fatalf("%v: found %v, %v", image, found, err)
	}
	return found[0]
}

// The layers that come next are recorded with the one that is asked for, and are found when
// they are.
func TestLayersAheadAreRecordedTogether(t *testing.T) {
	s, l := openAhead(t, Config{})
	base := l.mustPull(t, s, plain1, 0)[0]
	for _, image := range [][]int{{0, 7, 6, 4, 5}, {0, 7, 6, 4}, {0, 7, 6}, {0, 7}, {0, 1, 4}} { // in any order
		l.ahead(t, s, image...)
	}
	first := l.askFor(t, s, base, 0, 7)
	all := snapshotNames(t, s)
	if len(all) != 5 {
		t.Errorf("snapshots %v", all)
	}
	if got := s.Stats(); got.Ahead != 4 {
		t.Errorf("%+v", got)
	}
	parent := first
	for n := range 3 {
		image := []int{0, 7, 6, 4, 5}[:3+n]
		parent = l.askFor(t, s, parent, image...)
		if !strings.HasPrefix(parent, "default/0/extract-") {
			t.Errorf("%v is called %q", image, parent)
		}
		if err := l.check(s, parent, image); err != nil {
			t.Error(err)
		}
	}
	if got := snapshotNames(t, s); !slices.Equal(got, all) {
		t.Errorf("asking for them made %v of %v", got, all)
	}
	s.dropAhead(ctx, s.ahead.close()) // layer 4 on 1, which nobody asked for
	checkStore(t, s)
	s = reopen(t, s)
	if err := l.check(s, parent, []int{0, 7, 6, 4, 5}); err != nil {
		t.Error(err)
	}
	emptyOut(t, s)
	if n := layerDirs(t, s); n != 0 {
		t.Errorf("%d layers of nobody", n)
	}
}

// What asks something of the layers below, what is there, and what is another namespace's, is
// left for when it is asked for.
func TestLayersAheadThatAreNotRecordedYet(t *testing.T) {
	s, l := openAhead(t, Config{})
	other := l.mustPull(t, s, plain1, 0, 7, 6)
	removeAll(t, s, other[1:])
	base := other[0]
	l.ahead(t, s, 0, 7)
	l.ahead(t, s, 0, 7, 2) // wants to know what d is
	l.ahead(t, s, 0, 7, 2, 6)
	foreign := l.upcoming(0, 7, 5)
	foreign.Namespace = "other"
	if err := s.Ahead(ctx, foreign, l.extractAlone(foreign.Blob)); err != nil {
		t.Fatal(err)
	}
	first := l.askFor(t, s, base, 0, 7)
	if got := s.Stats(); got.Ahead != 1 {
		t.Errorf("%+v", got)
	}
	second := l.askFor(t, s, first, 0, 7, 2)
	if got := s.Stats(); got.Ahead != 2 {
		t.Errorf("%+v", got)
	}
	third := l.askFor(t, s, second, 0, 7, 2, 6)
	if err := l.check(s, third, []int{0, 7, 2, 6}); err != nil {
		t.Error(err)
	}
	if !s.ahead.has(foreign.Blob.Digest) {
		t.Error("the layer of another namespace is gone")
	}
	s.dropAhead(ctx, s.ahead.close())
	checkStore(t, s)
}

// containerd's garbage collection may take what it does not know yet: that is extracted again.
func TestLayersAheadThatAreCollected(t *testing.T) {
	s, l := openAhead(t, Config{})
	base := l.mustPull(t, s, plain1, 0)[0]
	l.ahead(t, s, 0, 7)
	l.ahead(t, s, 0, 7, 6)
	first := l.askFor(t, s, base, 0, 7)
	all := snapshotNames(t, s)
	if again := l.askFor(t, s, base, 0, 7); again != first {
		t.Errorf("%q, and %q before", again, first)
	}
	if got := snapshotNames(t, s); !slices.Equal(got, all) {
		t.Errorf("asking again made %v of %v", got, all)
	}
	for _, name := range slices.Backward(all) {
		if strings.HasPrefix(name, "default/0/") {
			mustRemove(t, s, name)
		}
	}
	l.mustPull(t, s, diffIDs, 0, 7, 6)
	checkStore(t, s)
}

// containerd's own garbage collection, with its metadata in this process.
func TestGarbageCollectionOfLayersAhead(t *testing.T) {
	s, l := openAhead(t, Config{})
	dir := t.TempDir()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}()
	db := metadata.NewDB(file, blobs, map[string]snapshots.Snapshotter{"strata": s})
	ctx := namespaces.WithNamespace(ctx, "default")
	for i := range 3 {
		l.ahead(t, s, []int{7, 6, 4}[:i+1]...)
	}
	sn := db.Snapshotter("strata")
	var chain []string
	for n := range 2 { // and not the third one
		labels := l.labels([]int{7, 6, 4}[:n+1], diffIDs)
		labels["containerd.io/gc.root"] = "yes"
		parent := ""
		if n > 0 {
			parent = chain[n-1]
		}
		if _, err := sn.Prepare(ctx, fmt.Sprintf("extract-%d x", n), parent, snapshots.WithLabels(labels)); !errdefs.IsAlreadyExists(err) {
			t.Fatalf("got %v", err)
		}
		chain = append(chain, labels[snapshots.LabelSnapshotRef])
		if _, err := sn.Stat(ctx, chain[n]); err != nil {
			t.Error(err)
		}
	}
	if got := snapshotNames(t, s); len(got) != 3 {
		t.Errorf("snapshots %v", got)
	}
	// It looks at a snapshotter when a snapshot was removed: who gives up removes one.
	if _, err := sn.Prepare(ctx, "extract-2 x", chain[1]); err != nil {
		t.Fatal(err)
	}
	if err := sn.Remove(ctx, "extract-2 x"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.GarbageCollect(ctx); err != nil {
		t.Fatal(err)
	}
	if got := snapshotNames(t, s); len(got) != 2 || layerDirs(t, s) != 2 {
		t.Errorf("snapshots %v, %d layers", got, layerDirs(t, s))
	}
	if _, err := sn.Stat(ctx, chain[1]); err != nil {
		t.Error(err)
	}
	checkStore(t, s)
}

// However many ask for a layer ahead at once, by Prepare or with a snapshot that they have
// made before: each is given that one, and nothing is extracted.
func TestManyAskForALayerAhead(t *testing.T) {
	const clients, rounds = 6, 30
	s, l := openAhead(t, Config{Durability: DurabilityNone})
	for round := range rounds {
		var extractions []extraction
		for range clients {
			extractions = append(extractions, l.extraction(t, s, "", 7))
		}
		l.ahead(t, s, 7)
		var wg sync.WaitGroup
		for i, x := range extractions {
			wg.Go(func() {
				st, err := s.Stage(ctx, x.mounts, l.descs[7])
				if err != nil {
					t.Error(err)
					return
				}
				if _, adopted, err := st.Adopt(ctx); !adopted || err != nil {
					t.Errorf("Apply: %v, %v", adopted, err)
				}
				if err := st.Release(); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				key := fmt.Sprintf("default/9/extract-%d-%d", round, i)
				if _, err := s.Prepare(ctx, key, "", snapshots.WithLabels(l.labels([]int{7}, diffIDs))); !errdefs.IsAlreadyExists(err) {
					t.Errorf("Prepare: %v", err)
				}
			})
		}
		wg.Wait()
		if n := layerDirs(t, s); n != 1 {
			t.Errorf("%d layers, want 1", n)
		}
		emptyOut(t, s)
	}
}
