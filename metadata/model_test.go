// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
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
		if s.layer == layer {
			n++
		}
	}
	return n
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

func (m model) commit(key, name, parent string, layer uint64) error {
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
	delete(m, key)
	m[name] = modelled{kind: snapshots.KindCommitted, parent: s.parent, layer: layer}
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
	for _, is := range []func(error) bool{errdefs.IsNotFound, errdefs.IsAlreadyExists, errdefs.IsFailedPrecondition, errdefs.IsInvalidArgument} {
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
		s, err := Open(path)
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
		layers := []uint64{}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			name, parent := names.Draw(rt, "name"), parents.Draw(rt, "parent")
			switch rapid.SampledFrom([]string{"prepare", "view", "commit", "commit", "remove", "crash"}).Draw(rt, "call") {
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
				_, err := commit(s, Commit{Key: name, Name: to, Parent: parent, Layer: Layer{Number: layer}})
				expect(rt, err, m.commit(name, to, parent, layer))
				layers = append(layers, layer)
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
	if was.layer != 0 && m.references(was.layer) == 0 {
		want = 1
	}
	if len(removed.Layers) != want {
		rt.Fatalf("removing %s freed layers %v, want %d", name, removed.Layers, want)
	}
}

func compare(rt *rapid.T, t *testing.T, s *Store, m model) {
	all := dump(t, s)
	if len(all) != len(m) {
		rt.Fatalf("store %v, model %v", all, m)
	}
	for name, want := range m {
		got, ok := all[name]
		if !ok || got.Kind != want.kind || got.Parent != want.parent || got.Layer != want.layer {
			rt.Fatalf("%s: store %+v, model %+v", name, got, want)
		}
	}
	checkIndexes(t, s)
}
