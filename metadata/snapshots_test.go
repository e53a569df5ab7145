// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

func TestGet(t *testing.T) {
	s := openStore(t)
	populate(t, s)
	for name, want := range map[string]struct {
		kind   snapshots.Kind
		parent string
		size   int64
	}{
		"committed-1": {snapshots.KindCommitted, "", 1},
		"committed-2": {snapshots.KindCommitted, "committed-1", 2},
		"active-1":    {snapshots.KindActive, "", 0},
		"active-2":    {snapshots.KindActive, "committed-1", 0},
		"active-3":    {snapshots.KindActive, "committed-2", 0},
		"view-1":      {snapshots.KindView, "", 0},
		"view-2":      {snapshots.KindView, "committed-2", 0},
	} {
		got, err := get(s, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.Name != name || got.Kind != want.kind || got.Parent != want.parent || got.Usage.Size != want.size {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
		if got.Created.IsZero() || got.Created != got.Updated {
			t.Errorf("%s: created %v, updated %v", name, got.Created, got.Updated)
		}
		if hasLayer := got.Layer != 0; hasLayer != (want.kind == snapshots.KindCommitted) {
			t.Errorf("%s: layer %d", name, got.Layer)
		}
	}
	checkIndexes(t, s)
}

func TestErrors(t *testing.T) {
	long := strings.Repeat("x", bolt.MaxKeySize+1)
	big := map[string]string{"k": strings.Repeat("v", 4096)}
	for name, tc := range map[string]struct {
		do   func(t *testing.T, s *Store) error
		want func(error) bool
	}{
		"get unknown":              {func(_ *testing.T, s *Store) error { _, err := get(s, "nope"); return err }, errdefs.IsNotFound},
		"create unknown parent":    {creating(snapshots.KindActive, "new", "nope", nil), errdefs.IsNotFound},
		"create on active":         {creating(snapshots.KindActive, "new", "active-1", nil), errdefs.IsInvalidArgument},
		"create on view":           {creating(snapshots.KindView, "new", "view-1", nil), errdefs.IsInvalidArgument},
		"create committed":         {creating(snapshots.KindCommitted, "new", "", nil), errdefs.IsInvalidArgument},
		"create unknown kind":      {creating(snapshots.KindUnknown, "new", "", nil), errdefs.IsInvalidArgument},
		"create taken by active":   {creating(snapshots.KindActive, "active-1", "", nil), errdefs.IsAlreadyExists},
		"create taken by commit":   {creating(snapshots.KindView, "committed-1", "", nil), errdefs.IsAlreadyExists},
		"create without a key":     {creating(snapshots.KindActive, "", "", nil), errdefs.IsInvalidArgument},
		"create with a long key":   {creating(snapshots.KindActive, long, "", nil), errdefs.IsInvalidArgument},
		"create with a big label":  {creating(snapshots.KindActive, "new", "", big), errdefs.IsInvalidArgument},
		"create unnamed label":     {creating(snapshots.KindActive, "new", "", map[string]string{"": "v"}), errdefs.IsInvalidArgument},
		"commit unknown":           {committing(Commit{Key: "nope", Name: "new"}), errdefs.IsNotFound},
		"commit to taken":          {committing(Commit{Key: "active-1", Name: "committed-1"}), errdefs.IsAlreadyExists},
		"commit to itself":         {committing(Commit{Key: "active-1", Name: "active-1"}), errdefs.IsAlreadyExists},
		"commit committed":         {committing(Commit{Key: "committed-1", Name: "new"}), errdefs.IsFailedPrecondition},
		"commit view":              {committing(Commit{Key: "view-1", Name: "new"}), errdefs.IsFailedPrecondition},
		"commit without a name":    {committing(Commit{Key: "active-1"}), errdefs.IsInvalidArgument},
		"commit with a big label":  {committing(Commit{Key: "active-1", Name: "new", Labels: big}), errdefs.IsInvalidArgument},
		"commit other parent":      {committing(Commit{Key: "active-2", Name: "new", Parent: "committed-2"}), errdefs.IsInvalidArgument},
		"commit unknown parent":    {committing(Commit{Key: "active-1", Name: "new", Parent: "nope"}), errdefs.IsNotFound},
		"commit on active":         {committing(Commit{Key: "active-1", Name: "new", Parent: "active-2"}), errdefs.IsFailedPrecondition},
		"commit on itself":         {committing(Commit{Key: "active-1", Name: "new", Parent: "active-1"}), errdefs.IsFailedPrecondition},
		"commit on its new name":   {committing(Commit{Key: "active-1", Name: "new", Parent: "new"}), errdefs.IsNotFound},
		"remove unknown":           {func(_ *testing.T, s *Store) error { _, err := remove(s, "nope"); return err }, errdefs.IsNotFound},
		"remove with children":     {func(_ *testing.T, s *Store) error { _, err := remove(s, "committed-1"); return err }, errdefs.IsFailedPrecondition},
		"update unknown":           {updating(snapshots.Info{Name: "nope"}), errdefs.IsNotFound},
		"update parent":            {updating(snapshots.Info{Name: "active-1"}, "parent"), errdefs.IsInvalidArgument},
		"update with a big label":  {updating(snapshots.Info{Name: "active-1", Labels: big}), errdefs.IsInvalidArgument},
		"walk with a broken query": {func(_ *testing.T, s *Store) error { return s.Walk(context.Background(), nil, "name==\"") }, errdefs.IsInvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			populate(t, s)
			before := dump(t, s)
			err := tc.do(t, s)
			if !tc.want(err) {
				t.Errorf("got %v", err)
			}
			if after := dump(t, s); !reflect.DeepEqual(before, after) {
				t.Errorf("a refused call changed the store:\n%v\n%v", before, after)
			}
			checkIndexes(t, s)
		})
	}
}

func creating(kind snapshots.Kind, key, parent string, labels map[string]string) func(*testing.T, *Store) error {
	return func(t *testing.T, s *Store) error {
		_, err := create(t, s, kind, key, parent, labels)
		return err
	}
}

func committing(c Commit) func(*testing.T, *Store) error {
	return func(_ *testing.T, s *Store) error {
		_, err := commit(s, c)
		return err
	}
}

func updating(info snapshots.Info, paths ...string) func(*testing.T, *Store) error {
	return func(_ *testing.T, s *Store) error {
		return s.Update(context.Background(), func(tx *Tx) error {
			_, err := tx.UpdateInfo(info, paths...)
			return err
		})
	}
}

func dump(t testing.TB, s *Store) map[string]Snapshot {
	t.Helper()
	all := map[string]Snapshot{}
	err := s.Walk(context.Background(), func(_ context.Context, sn Snapshot) error {
		if _, twice := all[sn.Name]; twice {
			t.Errorf("%s was walked over twice", sn.Name)
		}
		all[sn.Name] = sn
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCommitKeepsTheNumberAndReplacesLabels(t *testing.T) {
	s := openStore(t)
	active, err := create(t, s, snapshots.KindActive, "a", "", map[string]string{"old": "1", "empty": ""})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"old": "1"}; !maps.Equal(active.Labels, want) {
		t.Errorf("labels %v, want %v", active.Labels, want)
	}
	done, err := commit(s, Commit{Key: "a", Name: "c", Labels: map[string]string{"new": "2"}})
	if err != nil {
		t.Fatal(err)
	}
	if done.Number != active.Number {
		t.Errorf("number %d became %d", active.Number, done.Number)
	}
	if want := map[string]string{"new": "2"}; !maps.Equal(done.Labels, want) {
		t.Errorf("labels %v, want %v", done.Labels, want)
	}
	if _, err := get(s, "a"); !errdefs.IsNotFound(err) {
		t.Errorf("the key is still there: %v", err)
	}
	checkIndexes(t, s)
}

func TestLateParent(t *testing.T) {
	for _, tc := range []struct {
		name, oldParent, newParent, want string
	}{
		{"given", "", "committed-1", "committed-1"},
		{"the same again", "committed-1", "committed-1", "committed-1"},
		{"kept", "committed-1", "", "committed-1"},
		{"none", "", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openStore(t)
			populate(t, s)
			if _, err := create(t, s, snapshots.KindActive, "k", tc.oldParent, nil); err != nil {
				t.Fatal(err)
			}
			done, err := commit(s, Commit{Key: "k", Name: "n", Parent: tc.newParent})
			if err != nil {
				t.Fatal(err)
			}
			if done.Parent != tc.want {
				t.Errorf("parent %q, want %q", done.Parent, tc.want)
			}
			if tc.want != "" {
				if _, err := remove(s, tc.want); !errdefs.IsFailedPrecondition(err) {
					t.Errorf("a late parent could be removed: %v", err)
				}
			}
			checkIndexes(t, s)
		})
	}
}

func TestChain(t *testing.T) {
	s := openStore(t)
	populate(t, s)
	c1, _ := get(s, "committed-1")
	c2, _ := get(s, "committed-2")
	for name, want := range map[string][]uint64{
		"active-1": nil,
		"active-2": {c1.Layer},
		"active-3": {c2.Layer, c1.Layer},
		"view-2":   {c2.Layer, c1.Layer},
	} {
		sn, err := get(s, name)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		err = s.View(func(tx *Tx) error {
			chain, err := tx.Chain(sn.ParentNumber)
			for _, l := range chain {
				got = append(got, l.Number)
			}
			return err
		})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: chain %v (%v), want %v", name, got, err, want)
		}
	}
}

func TestRemove(t *testing.T) {
	s := openStore(t)
	populate(t, s)
	c2, _ := get(s, "committed-2")
	v2, _ := get(s, "view-2")
	got, err := remove(s, "view-2")
	if err != nil || got.Number != v2.Number || got.Kind != snapshots.KindView || got.Layers != nil {
		t.Errorf("view-2: %+v, %v", got, err)
	}
	if _, err := remove(s, "active-3"); err != nil {
		t.Fatal(err)
	}
	got, err = remove(s, "committed-2")
	if err != nil || got.Kind != snapshots.KindCommitted || !reflect.DeepEqual(got.Layers, []uint64{c2.Layer}) {
		t.Errorf("committed-2: %+v, %v", got, err)
	}
	if _, err := create(t, s, snapshots.KindView, "view-2", "committed-1", nil); err != nil {
		t.Errorf("a removed key can't be used again: %v", err)
	}
	checkIndexes(t, s)
}

func TestUpdateInfo(t *testing.T) {
	s := openStore(t)
	before, err := create(t, s, snapshots.KindActive, "a", "", map[string]string{"keep": "k", "gone": "g", snapshots.LabelSnapshotRef: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	var after Snapshot
	err = s.Update(context.Background(), func(tx *Tx) (err error) {
		info := snapshots.Info{Name: "a", Parent: "ignored", Labels: map[string]string{"new": "n", snapshots.LabelSnapshotRef: "r2", "not asked": "x"}}
		after, err = tx.UpdateInfo(info, "labels.new", "labels.gone", "labels."+snapshots.LabelSnapshotRef)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"keep": "k", "new": "n", snapshots.LabelSnapshotRef: "r2"}
	if !maps.Equal(after.Labels, want) {
		t.Errorf("labels %v, want %v", after.Labels, want)
	}
	if after.Created != before.Created || !after.Updated.After(before.Updated) {
		t.Errorf("created %v → %v, updated %v → %v", before.Created, after.Created, before.Updated, after.Updated)
	}
	checkIndexes(t, s)
}
