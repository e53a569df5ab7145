// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"errors"
	"reflect"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

func isPatchGone(err error) bool { return errors.Is(err, ErrPatchGone) && errdefs.IsUnavailable(err) }

// onLayer shares layer l under key, with a patch that is there or not.
func onLayer(t *testing.T, s *Store, l Layer, key string, patch Layer, there bool) uint64 {
	t.Helper()
	n := reserve(t, s)
	update(t, s, func(tx *Tx) error {
		_, err := tx.Share(Share{Create: Create{Number: n, Key: key}, Layer: l, Patch: patch, SharedPatch: there})
		return err
	})
	return n
}

// patchesOn are the patches on a layer, as who looks for one comes by them.
func patchesOn(t *testing.T, s *Store, layer uint64) (found []uint64) {
	t.Helper()
	skip := map[uint64]bool{}
	for at := uint64(0); ; {
		var p Layer
		err := s.View(func(tx *Tx) (err error) { p, at, err = tx.NextPatch(layer, at, skip); return err })
		if errdefs.IsNotFound(err) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, p.Number)
		skip[p.Number] = true
	}
}

func TestPatchesOfALayer(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	if got := patchesOn(t, s, l.Number); got != nil {
		t.Errorf("found %v on a layer without patches", got)
	}
	size := snapshots.Usage{Size: 1, Inodes: 1}
	one, two := Layer{Number: reserve(t, s), Usage: size}, Layer{Number: reserve(t, s), Usage: size}
	onLayer(t, s, l, "none", Layer{}, false)
	onLayer(t, s, l, "a", one, false)
	onLayer(t, s, l, "b", one, true)
	onLayer(t, s, l, "c", two, false)
	onLayer(t, s, l, "d", one, true)
	if got, want := patchesOn(t, s, l.Number), []uint64{one.Number, two.Number}; !reflect.DeepEqual(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	if got := patchesOn(t, s, one.Number); got != nil {
		t.Errorf("found %v on a patch", got)
	}
	checkIndexes(t, s)
}

// A patch stays with the last of its snapshots, and is charged to the oldest.
func TestSharedPatchGoesWithItsLastSnapshot(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	patch := Layer{Number: reserve(t, s), Usage: snapshots.Usage{Size: 100, Inodes: 3}}
	onLayer(t, s, l, "a", patch, false)
	onLayer(t, s, l, "b", patch, true)
	charged := func(key string) snapshots.Usage {
		t.Helper()
		sn, err := get(s, key)
		if err != nil {
			t.Fatal(err)
		}
		var u snapshots.Usage
		if err := s.View(func(tx *Tx) (err error) { u, err = tx.Charged(sn); return err }); err != nil {
			t.Fatal(err)
		}
		return u
	}
	if a, b := charged("a"), charged("b"); a != patch.Usage || b != (snapshots.Usage{}) {
		t.Errorf("charged are %+v and %+v", a, b)
	}
	made := rebuilt(t, s.Path())
	for _, sn := range made.Snapshots {
		if (sn.Name == "a" || sn.Name == "b") && sn.Patch != patch.Number {
			t.Errorf("after a rebuild %s has patch %d", sn.Name, sn.Patch)
		}
	}
	if len(made.Problems) > 0 {
		t.Errorf("after a rebuild: %+v", made.Problems)
	}
	if r, err := remove(s, "a"); err != nil || len(r.Layers) != 0 {
		t.Errorf("the first of two freed %v, %v", r.Layers, err)
	}
	if b := charged("b"); b != patch.Usage {
		t.Errorf("the next is charged %+v", b)
	}
	if r, err := remove(s, "b"); err != nil || !reflect.DeepEqual(r.Layers, []uint64{patch.Number}) {
		t.Errorf("the last freed %v, %v", r.Layers, err)
	}
	checkIndexes(t, s)
}

// A patch that was found and is gone is not made again by naming it.
func TestCommitOnAPatchThatIsGone(t *testing.T) {
	s := openStore(t)
	l := shared(t, s)
	n := active(t, s, "k")
	failing(t, s, isPatchGone, func(tx *Tx) error {
		_, err := tx.Commit(Commit{Key: "k", Name: "name", Layer: l, Patch: Layer{Number: 999}, SharedPatch: true})
		return err
	})
	if sn, err := get(s, "k"); err != nil || sn.Number != n || sn.Layer != 0 {
		t.Errorf("%+v, %v", sn, err)
	}
	checkIndexes(t, s)
}
