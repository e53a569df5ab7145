// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func update(t *testing.T, s *Store, fn func(*Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

// failing runs fn, whose error has to be of a class.
func failing(t *testing.T, s *Store, is func(error) bool, fn func(*Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), fn); !is(err) {
		t.Errorf("got %v", err)
	}
}

// shared makes committed snapshot "first" of a layer with a diffID.
func shared(t *testing.T, s *Store) Layer {
	t.Helper()
	l := Layer{Number: reserve(t, s), DiffID: digest.FromString("layer"), Usage: snapshots.Usage{Size: 7, Inodes: 8}}
	active(t, s, "k-first")
	if _, err := commit(s, Commit{Key: "k-first", Name: "first", Layer: l, Usage: l.Usage}); err != nil {
		t.Fatal(err)
	}
	return l
}

func active(t *testing.T, s *Store, key string) uint64 {
	t.Helper()
	sn, err := create(t, s, snapshots.KindActive, key, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return sn.Number
}

func TestAdoptKeepsTheLayer(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	n := active(t, s, "k")
	update(t, s, func(tx *Tx) error { return tx.Adopt(n, l) })
	failing(t, s, errdefs.IsUnavailable, func(tx *Tx) error { return tx.Adopt(n, l) })
	if sn, err := get(s, "k"); err != nil || sn.Layer != l.Number || sn.Kind != snapshots.KindActive {
		t.Errorf("%+v, %v", sn, err)
	}
	if r, err := remove(s, "first"); err != nil || r.Layers != nil {
		t.Errorf("freed %v, %v", r.Layers, err)
	}
	other := Layer{Number: reserve(t, s), DiffID: digest.FromString("other")}
	if _, err := commit(s, Commit{Key: "k", Name: "c", Layer: other}); !errdefs.IsUnavailable(err) {
		t.Errorf("committed with another layer: %v", err)
	}
	if _, err := commit(s, Commit{Key: "k", Name: "c", Layer: l}); err != nil {
		t.Error(err)
	}
	checkIndexes(t, s)
	if r, err := remove(s, "c"); err != nil || !reflect.DeepEqual(r.Layers, []uint64{l.Number}) {
		t.Errorf("freed %v, %v", r.Layers, err)
	}
	checkIndexes(t, s)
}

func TestStagedSnapshotThatIsRemovedFreesItsLayer(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	n := active(t, s, "k")
	update(t, s, func(tx *Tx) error { return tx.Adopt(n, l) })
	if _, err := remove(s, "first"); err != nil {
		t.Fatal(err)
	}
	if r, err := remove(s, "k"); err != nil || !reflect.DeepEqual(r.Layers, []uint64{l.Number}) {
		t.Errorf("freed %v, %v", r.Layers, err)
	}
	checkIndexes(t, s)
}

func TestAdoptThatCannotBe(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	first, err := get(s, "first")
	if err != nil {
		t.Fatal(err)
	}
	n := active(t, s, "k")
	failing(t, s, errdefs.IsFailedPrecondition, func(tx *Tx) error { return tx.Adopt(first.Number, l) })
	failing(t, s, errdefs.IsNotFound, func(tx *Tx) error { return tx.Adopt(999, l) })
	// What was looked up earlier is gone, or another layer has the number.
	failing(t, s, errdefs.IsUnavailable, func(tx *Tx) error { return tx.Adopt(n, Layer{Number: 999, DiffID: l.DiffID}) })
	failing(t, s, errdefs.IsUnavailable, func(tx *Tx) error {
		return tx.Adopt(n, Layer{Number: l.Number, DiffID: digest.FromString("other")})
	})
	checkIndexes(t, s)
}

func TestPublishStaged(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	n, other := active(t, s, "k"), active(t, s, "k2")
	mine := Layer{Number: n, DiffID: digest.FromString("mine"), Usage: snapshots.Usage{Size: 1, Inodes: 2}}
	failing(t, s, errdefs.IsAlreadyExists, func(tx *Tx) error {
		return tx.PublishStaged(n, Layer{Number: n, DiffID: l.DiffID})
	})
	failing(t, s, errdefs.IsAlreadyExists, func(tx *Tx) error {
		return tx.PublishStaged(n, Layer{Number: l.Number, DiffID: mine.DiffID})
	})
	update(t, s, func(tx *Tx) error { return tx.PublishStaged(n, mine) })
	failing(t, s, errdefs.IsUnavailable, func(tx *Tx) error {
		return tx.PublishStaged(n, Layer{Number: 777, DiffID: digest.FromString("second")})
	})
	update(t, s, func(tx *Tx) error {
		found, err := tx.LayerByDiffID(mine.DiffID)
		if err == nil {
			err = tx.Adopt(other, found)
		}
		return err
	})
	// The snapshot whose directory it was goes first.
	if r, err := remove(s, "k"); err != nil || r.Layers != nil {
		t.Errorf("freed %v, %v", r.Layers, err)
	}
	if r, err := remove(s, "k2"); err != nil || !reflect.DeepEqual(r.Layers, []uint64{n}) {
		t.Errorf("freed %v, %v", r.Layers, err)
	}
	checkIndexes(t, s)
}

func TestAddLayerFindsTheOneThatIsThere(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	n := active(t, s, "k")
	update(t, s, func(tx *Tx) error {
		got, err := tx.AddLayer(Layer{Number: 500, DiffID: l.DiffID})
		if err != nil || got.Number != l.Number {
			t.Errorf("%+v, %v", got, err)
		}
		got, err = tx.AddLayer(Layer{Number: 501, DiffID: digest.FromString("new")})
		if err != nil || got.Number != 501 {
			t.Errorf("%+v, %v", got, err)
		}
		return tx.Adopt(n, got)
	})
	checkIndexes(t, s)
}

func TestUnstage(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	n := active(t, s, "k")
	unstage := func(want ...uint64) {
		t.Helper()
		update(t, s, func(tx *Tx) error {
			freed, err := tx.Unstage(n)
			if len(freed) != len(want) || len(want) > 0 && freed[0] != want[0] {
				t.Errorf("freed %v, want %v", freed, want)
			}
			return err
		})
		checkIndexes(t, s)
	}
	unstage() // it is not staged
	update(t, s, func(tx *Tx) error { return tx.Adopt(n, l) })
	unstage()
	update(t, s, func(tx *Tx) error { return tx.Adopt(n, l) })
	if _, err := remove(s, "first"); err != nil {
		t.Fatal(err)
	}
	unstage(l.Number)
}

func TestShareCommitsAtOnce(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	n, patch := reserve(t, s), Layer{Number: reserve(t, s), Usage: snapshots.Usage{Size: 1, Inodes: 1}}
	create := Create{Number: n, Key: "key", Parent: "first", Labels: map[string]string{snapshots.LabelSnapshotRef: "ref", "a": "b"}}
	update(t, s, func(tx *Tx) error {
		made, err := tx.Share(Share{Create: create, Layer: l, Patch: patch})
		if made.Kind != snapshots.KindCommitted || made.Parent != "first" || made.Labels["a"] != "b" || made.Usage != (snapshots.Usage{Size: 8, Inodes: 9}) {
			t.Errorf("%+v", made)
		}
		return err
	})
	first, err := get(s, "first")
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(func(tx *Tx) error {
		for parent, want := range map[uint64]int{first.Number: 1, 0: 0, n: 0} {
			if found, err := tx.CommittedByRef("ref", parent); err != nil || len(found) != want {
				t.Errorf("on %d: %v, %v", parent, found, err)
			}
		}
		chain, err := tx.Chain(n)
		if len(chain) != 3 || chain[0].Number != patch.Number || chain[1].Number != l.Number || chain[2].Number != l.Number {
			t.Errorf("chain %+v", chain)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	checkIndexes(t, s)
	if r, err := remove(s, "key"); err != nil || !reflect.DeepEqual(r.Layers, []uint64{patch.Number}) {
		t.Errorf("freed %v, %v", r.Layers, err)
	}
	checkIndexes(t, s)
}

func TestShareThatCannotBe(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	active(t, s, "k")
	for name, tc := range map[string]struct {
		share Share
		is    func(error) bool
	}{
		"taken":                {Share{Create: Create{Key: "k"}, Layer: l}, errdefs.IsAlreadyExists},
		"no parent":            {Share{Create: Create{Key: "new", Parent: "nobody"}, Layer: l}, errdefs.IsNotFound},
		"parent not committed": {Share{Create: Create{Key: "new", Parent: "k"}, Layer: l}, errdefs.IsInvalidArgument},
		"no name":              {Share{Layer: l}, errdefs.IsInvalidArgument},
		"layer gone":           {Share{Create: Create{Key: "new"}, Layer: Layer{Number: 999}}, errdefs.IsUnavailable},
		"no layer":             {Share{Create: Create{Key: "new"}}, errdefs.IsUnavailable},
		"patch gone":           {Share{Create: Create{Key: "new"}, Layer: l, Patch: Layer{Number: 999}, SharedPatch: true}, isPatchGone},
	} {
		tc.share.Number = reserve(t, s)
		t.Run(name, func(t *testing.T) {
			failing(t, s, tc.is, func(tx *Tx) error { _, err := tx.Share(tc.share); return err })
		})
	}
	checkIndexes(t, s)
}

// Neither what is not committed yet nor what another label says is found.
func TestCommittedByRef(t *testing.T) {
	s := openStore(t)
	ref := map[string]string{snapshots.LabelSnapshotRef: "ref"}
	if _, err := create(t, s, snapshots.KindActive, "k", "", ref); err != nil {
		t.Fatal(err)
	}
	count := func(want int) {
		t.Helper()
		err := s.View(func(tx *Tx) error {
			found, err := tx.CommittedByRef("ref", 0)
			if len(found) != want {
				t.Errorf("found %v, want %d", found, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	count(0)
	if _, err := commit(s, Commit{Key: "k", Name: "c", Labels: ref, Layer: Layer{Number: reserve(t, s)}}); err != nil {
		t.Fatal(err)
	}
	count(1)
	update(t, s, func(tx *Tx) error {
		_, err := tx.UpdateInfo(snapshots.Info{Name: "c"}, "labels."+snapshots.LabelSnapshotRef)
		return err
	})
	count(0)
}

func TestReferredBy(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	err := s.View(func(tx *Tx) error {
		for prefix, want := range map[string]bool{"fir": true, "sec": false} {
			got, err := tx.ReferredBy(l.Number, func(name string) bool { return strings.HasPrefix(name, prefix) })
			if err != nil || got != want {
				t.Errorf("%s: %v, %v", prefix, got, err)
			}
		}
		got, err := tx.ReferredBy(999, func(string) bool { return true })
		if got {
			t.Error("nobody refers to a layer that is not there")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// The oldest pays; when it goes the next does.
func TestChargesMoveOn(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	n := active(t, s, "second")
	update(t, s, func(tx *Tx) error { return tx.Adopt(n, l) })
	charged := func(name string, want snapshots.Usage) {
		t.Helper()
		sn, err := get(s, name)
		if err != nil {
			t.Fatal(err)
		}
		err = s.View(func(tx *Tx) error {
			got, err := tx.Charged(sn)
			if got != want {
				t.Errorf("%s: %+v, want %+v", name, got, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	charged("first", l.Usage)
	charged("second", snapshots.Usage{})
	if _, err := remove(s, "first"); err != nil {
		t.Fatal(err)
	}
	charged("second", l.Usage)
}
