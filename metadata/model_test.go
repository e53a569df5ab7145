// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"pgregory.net/rapid"
)

// modelled is what a snapshot should look like.
type modelled struct {
	kind   snapshots.Kind
	parent string
	layer  uint64
	patch  uint64
}

// model is the store in the simplest form that can be right.
type model map[string]modelled

func (m model) hasChildren(name string) bool {
	for _, s := range m {
		if s.parent == name {
			return true
		}
	}
	return false
}

func (m model) references(layer uint64) (n int) {
	for _, s := range m {
		if s.layer == layer || s.patch == layer {
			n++
		}
	}
	return n
}

// modelPatch is a patch, 0 for none, that was made for a call or found.
type modelPatch struct {
	n     uint64
	found bool
}

func (m model) gone(p modelPatch) bool { return p.found && m.references(p.n) == 0 }

// layer is p as the store takes it.
func (p modelPatch) layer() Layer {
	if p.n == 0 {
		return Layer{}
	}
	return modelLayer(p.n)
}

// drawPatch is no patch, a new one, or one that was there and may be gone.
func drawPatch(rt *rapid.T, t *testing.T, s *Store, known *[]uint64) modelPatch {
	switch rapid.SampledFrom([]string{"none", "new", "found"}).Draw(rt, "patch") {
	case "new":
		p := modelPatch{n: reserve(t, s)}
		*known = append(*known, p.n)
		return p
	case "found":
		if len(*known) > 0 {
			return modelPatch{n: rapid.SampledFrom(*known).Draw(rt, "which"), found: true}
		}
	}
	return modelPatch{}
}

func (m model) create(kind snapshots.Kind, key, parent string) error {
	if p, ok := m[parent]; parent != "" && !ok {
		return errdefs.ErrNotFound
	} else if parent != "" && p.kind != snapshots.KindCommitted {
		return errdefs.ErrInvalidArgument
	}
	if _, taken := m[key]; taken {
		return errdefs.ErrAlreadyExists
	}
	m[key] = modelled{kind: kind, parent: parent}
	return nil
}

func (m model) commit(key, name, parent string, layer uint64, patch modelPatch) error {
	if _, taken := m[name]; taken {
		return errdefs.ErrAlreadyExists
	}
	s, ok := m[key]
	switch {
	case !ok:
		return errdefs.ErrNotFound
	case s.kind != snapshots.KindActive:
		return errdefs.ErrFailedPrecondition
	case s.parent != "" && parent != "" && s.parent != parent:
		return errdefs.ErrInvalidArgument
	}
	if s.parent == "" && parent != "" {
		p, ok := m[parent]
		if !ok {
			return errdefs.ErrNotFound
		}
		if p.kind != snapshots.KindCommitted {
			return errdefs.ErrFailedPrecondition
		}
		s.parent = parent
	}
	if s.layer != 0 && s.layer != layer || m.gone(patch) {
		return errdefs.ErrUnavailable
	}
	delete(m, key)
	m[name] = modelled{kind: snapshots.KindCommitted, parent: s.parent, layer: layer, patch: patch.n}
	return nil
}

func (m model) adopt(key string, layer uint64) error {
	s := m[key]
	switch {
	case s.kind != snapshots.KindActive:
		return errdefs.ErrFailedPrecondition
	case s.layer != 0, m.references(layer) == 0:
		return errdefs.ErrUnavailable
	}
	s.layer = layer
	m[key] = s
	return nil
}

// unstage returns how many layers nothing refers to any more.
func (m model) unstage(key string) (freed int) {
	s := m[key]
	if s.kind != snapshots.KindActive || s.layer == 0 {
		return 0
	}
	layer := s.layer
	s.layer = 0
	m[key] = s
	if m.references(layer) == 0 {
		return 1
	}
	return 0
}

func (m model) share(key, parent string, layer uint64, patch modelPatch) error {
	if m.references(layer) == 0 || m.gone(patch) {
		// Other mistakes are found first; what create did to the copy is forgotten.
		if err := maps.Clone(m).create(snapshots.KindCommitted, key, parent); err != nil {
			return err
		}
		return errdefs.ErrUnavailable
	}
	if err := m.create(snapshots.KindCommitted, key, parent); err != nil {
		return err
	}
	m[key] = modelled{kind: snapshots.KindCommitted, parent: parent, layer: layer, patch: patch.n}
	return nil
}

func (m model) remove(name string) error {
	if _, ok := m[name]; !ok {
		return errdefs.ErrNotFound
	}
	if m.hasChildren(name) {
		return errdefs.ErrFailedPrecondition
	}
	delete(m, name)
	return nil
}

func sameClass(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	for _, is := range []func(error) bool{errdefs.IsNotFound, errdefs.IsAlreadyExists, errdefs.IsFailedPrecondition, errdefs.IsInvalidArgument, errdefs.IsUnavailable} {
		if is(a) != is(b) {
			return false
		}
	}
	return true
}

// Random calls give the same answers as the model, and leave the same store,
// which a crash at any point between two calls does not change.
func TestStoreIsLikeTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%p.db", rt))
		s, err := Open(path, aheadFrom(rapid.IntRange(0, 30).Draw(rt, "ahead from")))
		if err != nil {
			rt.Fatal(err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				rt.Error(err)
			}
		}()
		m := model{}
		names := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
		parents := rapid.SampledFrom([]string{"", "", "a", "b", "c", "x"})
		layers, patches := []uint64{}, []uint64{}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			name, parent := names.Draw(rt, "name"), parents.Draw(rt, "parent")
			switch rapid.SampledFrom([]string{"prepare", "view", "commit", "commit", "adopt", "share", "unstage", "remove", "crash"}).Draw(rt, "call") {
			case "prepare":
				_, err := create(t, s, snapshots.KindActive, name, parent, nil)
				expect(rt, err, m.create(snapshots.KindActive, name, parent))
			case "view":
				_, err := create(t, s, snapshots.KindView, name, parent, nil)
				expect(rt, err, m.create(snapshots.KindView, name, parent))
			case "commit":
				layer := reserve(t, s)
				if len(layers) > 0 && rapid.Bool().Draw(rt, "shared") {
					layer = rapid.SampledFrom(layers).Draw(rt, "layer")
				}
				to := names.Draw(rt, "to")
				patch := drawPatch(rt, t, s, &patches)
				_, err := commit(s, Commit{Key: name, Name: to, Parent: parent, Layer: modelLayer(layer), Patch: patch.layer(), SharedPatch: patch.found})
				expect(rt, err, m.commit(name, to, parent, layer, patch))
				layers = append(layers, layer)
			case "adopt", "share", "unstage":
				layer := uint64(1 << 40) // of nobody
				if len(layers) > 0 {
					layer = rapid.SampledFrom(layers).Draw(rt, "layer")
				}
				how := rapid.SampledFrom([]string{"adopt", "share", "unstage"}).Draw(rt, "how")
				if how == "share" {
					shareBoth(rt, t, s, m, name, parent, layer, drawPatch(rt, t, s, &patches))
				} else {
					stageBoth(rt, s, m, how, name, layer)
				}
			case "remove":
				removeBoth(rt, s, m, name)
			case "crash":
				s = reopenCopy(t, s)
			}
		}
		compare(rt, t, s, m)
	})
}

func expect(rt *rapid.T, got, want error) {
	if !sameClass(got, want) {
		rt.Fatalf("got %v, want %v", got, want)
	}
}

func removeBoth(rt *rapid.T, s *Store, m model, name string) {
	was := m[name]
	removed, err := remove(s, name)
	expect(rt, err, m.remove(name))
	if err != nil {
		return
	}
	want := 0
	for _, n := range []uint64{was.layer, was.patch} {
		if n != 0 && m.references(n) == 0 {
			want++
		}
	}
	if len(removed.Layers) != want {
		rt.Fatalf("removing %s freed layers %v, want %d", name, removed.Layers, want)
	}
}

// modelLayer takes as many bytes as its number, so that sums tell layers apart.
func modelLayer(n uint64) Layer {
	return Layer{Number: n, Usage: snapshots.Usage{Size: int64(n), Inodes: 1}}
}

// shareBoth makes a snapshot of a layer that is there, and maybe of a patch.
func shareBoth(rt *rapid.T, t *testing.T, s *Store, m model, name, parent string, layer uint64, patch modelPatch) {
	n := reserve(t, s)
	err := s.Update(context.Background(), func(tx *Tx) error {
		_, err := tx.Share(Share{
			Create: Create{Number: n, Key: name, Parent: parent}, Layer: modelLayer(layer), Patch: patch.layer(), SharedPatch: patch.found,
		})
		return err
	})
	expect(rt, err, m.share(name, parent, layer, patch))
}

// stageBoth has a snapshot use, or no longer use, a layer that is there.
func stageBoth(rt *rapid.T, s *Store, m model, how, name string, layer uint64) {
	sn, err := get(s, name)
	if err != nil {
		return
	}
	if how == "adopt" {
		err := s.Update(context.Background(), func(tx *Tx) error { return tx.Adopt(sn.Number, modelLayer(layer)) })
		expect(rt, err, m.adopt(name, layer))
		return
	}
	var freed []uint64
	err = s.Update(context.Background(), func(tx *Tx) (err error) {
		freed, err = tx.Unstage(sn.Number)
		return err
	})
	if want := m.unstage(name); err != nil || len(freed) != want {
		rt.Fatalf("unstaging %s freed %v, %v, want %d", name, freed, err, want)
	}
}

// compareCharges makes sure that each layer is charged once.
func compareCharges(rt *rapid.T, s *Store, all map[string]Snapshot, m model) {
	var got, want snapshots.Usage
	layers := map[uint64]bool{}
	for _, is := range m {
		for _, n := range []uint64{is.layer, is.patch} {
			if n != 0 && !layers[n] {
				layers[n] = true
				want.Add(modelLayer(n).Usage)
			}
		}
	}
	err := s.View(func(tx *Tx) error {
		for _, sn := range all {
			u, err := tx.Charged(sn)
			if err != nil {
				return err
			}
			got.Add(u)
		}
		return nil
	})
	if err != nil || got != want {
		rt.Fatalf("snapshots are charged %+v (%v) for layers of %+v", got, err, want)
	}
}

func compare(rt *rapid.T, t *testing.T, s *Store, m model) {
	all := dump(t, s)
	if len(all) != len(m) {
		rt.Fatalf("store %v, model %v", all, m)
	}
	for name, want := range m {
		got, ok := all[name]
		if !ok || got.Kind != want.kind || got.Parent != want.parent || got.Layer != want.layer || got.Patch != want.patch {
			rt.Fatalf("%s: store %+v, model %+v", name, got, want)
		}
	}
	compareCharges(rt, s, all, m)
	checkIndexes(t, s)
}
