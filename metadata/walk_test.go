// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/filters"
	"pgregory.net/rapid"
)

func walkNames(t testing.TB, s *Store, fs ...string) []string {
	t.Helper()
	names := []string{}
	err := s.Walk(context.Background(), func(_ context.Context, sn Snapshot) error {
		names = append(names, sn.Name)
		return nil
	}, fs...)
	if err != nil {
		t.Fatalf("%q: %v", fs, err)
	}
	slices.Sort(names)
	return names
}

func TestWalkFilters(t *testing.T) {
	s := openStore(t)
	populate(t, s)
	const ref = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, key := range []string{"ref-1", "ref-2"} {
		if _, err := create(t, s, snapshots.KindActive, key+"-a", "committed-1", nil); err != nil {
			t.Fatal(err)
		}
		_, err := commit(s, Commit{Key: key + "-a", Name: key, Labels: map[string]string{snapshots.LabelSnapshotRef: ref, "n": key}})
		if err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"active-1", "active-2", "active-3", "committed-1", "committed-2", "ref-1", "ref-2", "view-1", "view-2"}
	for _, tc := range []struct {
		filters []string
		want    []string
		indexed bool
	}{
		{nil, all, false},
		{[]string{"kind==view"}, []string{"view-1", "view-2"}, false},
		{[]string{"name==view-1"}, []string{"view-1"}, true},
		{[]string{"name==nobody"}, []string{}, true},
		{[]string{"name==view-1", "name==active-1"}, []string{"active-1", "view-1"}, true},
		{[]string{"name==view-1", "name==view-1"}, []string{"view-1"}, true},
		{[]string{"name==view-1", "kind==active"}, []string{"active-1", "active-2", "active-3", "view-1"}, false},
		{[]string{"parent==committed-2"}, []string{"active-3", "view-2"}, true},
		{[]string{`parent==""`}, []string{"active-1", "committed-1", "view-1"}, false},
		{[]string{`labels."containerd.io/snapshot.ref"==` + ref + `,parent=="committed-1"`}, []string{"ref-1", "ref-2"}, true},
		{[]string{`labels."containerd.io/snapshot.ref"==` + ref + `,parent==""`}, []string{}, true},
		{[]string{`labels."containerd.io/snapshot.ref"==` + ref + `,labels.n==ref-2`}, []string{"ref-2"}, true},
		{[]string{`labels."containerd.io/snapshot.ref"==""`}, []string{}, false},
		{[]string{`labels."containerd.io/snapshot.ref"`}, []string{"ref-1", "ref-2"}, false},
		{[]string{`labels."containerd.io/snapshot.ref"!=` + ref + `,kind==view`}, []string{"view-1", "view-2"}, false},
		{[]string{`name~=/^view-/`}, []string{"view-1", "view-2"}, false},
		{[]string{`labels."x,name==view-1"!=y,kind==view`}, []string{"view-1", "view-2"}, false},
	} {
		if got := walkNames(t, s, tc.filters...); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: got %v, want %v", tc.filters, got, tc.want)
		}
		err := s.View(func(tx *Tx) error {
			if _, ok, err := tx.candidates(tc.filters); err != nil || ok != tc.indexed {
				t.Errorf("%q: by index %v, want %v (%v)", tc.filters, ok, tc.indexed, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// An index may only ever find too much. Filters are put together from pieces
// that are likely to confuse a reader of the syntax.
func TestIndexFindsWhatAScanFinds(t *testing.T) {
	s := openStore(t)
	names := []string{"a", "b", "c/d", "x y", `q"q`, "sha256:00"}
	parent := ""
	for i, name := range names {
		if _, err := create(t, s, snapshots.KindActive, name+"-tmp", parent, nil); err != nil {
			t.Fatal(err)
		}
		labels := map[string]string{snapshots.LabelSnapshotRef: names[(i+1)%len(names)], "l": name}
		if _, err := commit(s, Commit{Key: name + "-tmp", Name: name, Labels: labels}); err != nil {
			t.Fatal(err)
		}
		parent = name
	}
	fields := []string{"name", "parent", "kind", "labels.l", `labels."l"`, `labels."containerd.io/snapshot.ref"`, `"name"`, `labels."name==a"`}
	values := append([]string{`""`, `"a"`, `"x y"`, `"q\"q"`, `"c\x2fd"`, "committed", "/a/", "a,", "a.b", `"a`, "\"\u00e9\""}, names...)
	rapid.Check(t, func(rt *rapid.T) {
		var fs []string
		for range rapid.IntRange(1, 2).Draw(rt, "filters") {
			f := ""
			for i := range rapid.IntRange(1, 3).Draw(rt, "selectors") {
				if i > 0 {
					f += ","
				}
				f += rapid.SampledFrom(fields).Draw(rt, "field")
				f += rapid.SampledFrom([]string{"==", "==", "!=", "~=", "", " == "}).Draw(rt, "op")
				f += rapid.SampledFrom(values).Draw(rt, "value")
			}
			fs = append(fs, f)
		}
		filter, err := filters.ParseAll(fs...)
		if err != nil {
			if s.Walk(context.Background(), nil, fs...) == nil {
				rt.Fatalf("%q is no filter, but Walk took it", fs)
			}
			return
		}
		want := []string{}
		for _, sn := range dumpSorted(t, s) {
			if filter.Match(adapt(sn.Info)) {
				want = append(want, sn.Name)
			}
		}
		slices.Sort(want)
		if got := walkNames(t, s, fs...); !reflect.DeepEqual(got, want) {
			rt.Fatalf("%q: got %v, want %v", fs, got, want)
		}
	})
}

func dumpSorted(t *testing.T, s *Store) []Snapshot {
	t.Helper()
	var all []Snapshot
	err := s.Walk(context.Background(), func(_ context.Context, sn Snapshot) error {
		all = append(all, sn)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWalkManyWhileTheyChange(t *testing.T) {
	s := openStore(t)
	const n = 3*walkBatch + 7
	err := s.Update(context.Background(), func(tx *Tx) error {
		for i := range n {
			if _, err := tx.Create(Create{Number: uint64(i + 1), Kind: snapshots.KindActive, Key: fmt.Sprintf("k%04d", i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	err = s.Walk(context.Background(), func(_ context.Context, sn Snapshot) error {
		if seen[sn.Number] {
			t.Errorf("%s twice", sn.Name)
		}
		seen[sn.Number] = true
		// A write while walking must neither block nor disturb.
		_, err := remove(s, sn.Name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != n {
		t.Errorf("saw %d of %d", len(seen), n)
	}
}

func TestWalkStops(t *testing.T) {
	s := openStore(t)
	populate(t, s)
	stop := errors.New("stop")
	calls := 0
	err := s.Walk(context.Background(), func(context.Context, Snapshot) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = s.Walk(ctx, func(context.Context, Snapshot) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
