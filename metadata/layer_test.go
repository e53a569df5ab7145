// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"reflect"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func TestLayerIsSharedAndGoesWithItsLastReference(t *testing.T) {
	s := openStore(t)
	id := digest.FromString("layer")
	layer := Layer{Number: reserve(t, s), DiffID: id, Empty: true, OpaqueRoot: true, Usage: snapshots.Usage{Size: 7, Inodes: 8}}
	for _, name := range []string{"one", "two"} {
		if _, err := create(t, s, snapshots.KindActive, "k-"+name, "", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := commit(s, Commit{Key: "k-" + name, Name: name, Layer: layer}); err != nil {
			t.Fatal(err)
		}
	}
	var got Layer
	var refs []uint64
	err := s.View(func(tx *Tx) (err error) {
		if got, err = tx.LayerByDiffID(id); err == nil {
			refs, err = tx.References(layer.Number)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	layer.Created = got.Created
	if got != layer || len(refs) != 2 {
		t.Errorf("layer %+v, references %v", got, refs)
	}
	r, err := remove(s, "one")
	if err != nil || r.Layers != nil {
		t.Errorf("the first of two references freed %v, %v", r.Layers, err)
	}
	r, err = remove(s, "two")
	if err != nil || !reflect.DeepEqual(r.Layers, []uint64{layer.Number}) {
		t.Errorf("the last reference freed %v, %v", r.Layers, err)
	}
	err = s.View(func(tx *Tx) error {
		if tx.HasLayer(layer.Number) {
			t.Error("the layer is still there")
		}
		_, err := tx.LayerByDiffID(id)
		return err
	})
	if !errdefs.IsNotFound(err) {
		t.Errorf("diffID of a layer that is gone: %v", err)
	}
	checkIndexes(t, s)
}

// Who commits a layer that is there by then refers to that one.
func TestOneLayerForADiffID(t *testing.T) {
	s := openStore(t)
	id := digest.FromString("layer")
	var first uint64
	for i, name := range []string{"one", "two"} {
		if _, err := create(t, s, snapshots.KindActive, "k-"+name, "", nil); err != nil {
			t.Fatal(err)
		}
		made, err := commit(s, Commit{Key: "k-" + name, Name: name, Layer: Layer{Number: reserve(t, s), DiffID: id}})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = made.Layer
		} else if made.Layer != first {
			t.Errorf("the second refers to layer %d, the first to %d", made.Layer, first)
		}
	}
	checkIndexes(t, s)
}

func TestBlobs(t *testing.T) {
	s := openStore(t)
	blob, id, other := digest.FromString("blob"), digest.FromString("diffID"), digest.SHA512.FromString("blob")
	err := s.Update(context.Background(), func(tx *Tx) error {
		if err := tx.BindBlob(blob, id); err != nil {
			return err
		}
		return tx.BindBlob(other, other)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(func(tx *Tx) error {
		for blob, want := range map[digest.Digest]digest.Digest{blob: id, other: other} {
			if got, err := tx.DiffIDOf(blob); err != nil || got != want {
				t.Errorf("%s: %s, %v", blob, got, err)
			}
		}
		if _, err := tx.DiffIDOf("sha256:short"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("a broken digest: %v", err)
		}
		_, err := tx.DiffIDOf(digest.FromString("other"))
		return err
	})
	if !errdefs.IsNotFound(err) {
		t.Errorf("an unknown blob: %v", err)
	}
	err = s.Update(context.Background(), func(tx *Tx) error { return tx.ForgetBlob(blob) })
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(func(tx *Tx) error { _, err := tx.DiffIDOf(blob); return err })
	if !errdefs.IsNotFound(err) {
		t.Errorf("a forgotten blob: %v", err)
	}
}

func TestPatchGoesOnTopAndWithItsSnapshot(t *testing.T) {
	s := openStore(t)
	populate(t, s)
	if _, err := create(t, s, snapshots.KindActive, "k", "", nil); err != nil {
		t.Fatal(err)
	}
	layer, patch := Layer{Number: reserve(t, s)}, Layer{Number: reserve(t, s)}
	blob, id := digest.FromString("blob"), digest.FromString("diffID")
	done, err := commit(s, Commit{Key: "k", Name: "patched", Parent: "committed-1", Layer: layer, Patch: patch, Blob: blob, DiffID: id})
	if err != nil {
		t.Fatal(err)
	}
	base, _ := get(s, "committed-1")
	err = s.View(func(tx *Tx) error {
		chain, err := tx.Chain(done.Number)
		if err != nil {
			return err
		}
		var numbers []uint64
		for _, l := range chain {
			numbers = append(numbers, l.Number)
		}
		if want := []uint64{patch.Number, layer.Number, base.Layer}; !reflect.DeepEqual(numbers, want) {
			t.Errorf("chain %v, want %v", numbers, want)
		}
		if got, err := tx.DiffIDOf(blob); err != nil || got != id {
			t.Errorf("the blob is known as %s, %v", got, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	checkIndexes(t, s)
	r, err := remove(s, "patched")
	if err != nil || !reflect.DeepEqual(r.Layers, []uint64{layer.Number, patch.Number}) {
		t.Errorf("freed %v, %v", r.Layers, err)
	}
	checkIndexes(t, s)
}
