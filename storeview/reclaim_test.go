// SPDX-License-Identifier: Apache-2.0

package storeview_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/metadata"
	"github.com/strata-snapshotter/strata/storeview"
)

var ctx = context.Background()

// forest makes a random store of chains that share layers, without directories, and
// names some of its snapshots as images.
func forest(t *rapid.T, dir string) (s *metadata.Store, names storeview.Names) {
	s, err := metadata.Open(filepath.Join(dir, "metadata.db"), metadata.Volatile())
	if err != nil {
		t.Fatal(err)
	}
	parents := []string{""}
	for i := range rapid.IntRange(1, 25).Draw(t, "snapshots") {
		key := digest.FromString(fmt.Sprint(i)).String()
		name, parent := fmt.Sprintf("ns/%d/%s", i, key), rapid.SampledFrom(parents).Draw(t, "parent")
		n, err := s.Reserve(ctx)
		if err != nil {
			t.Fatal(err)
		}
		kind := rapid.SampledFrom([]snapshots.Kind{snapshots.KindActive, snapshots.KindView, snapshots.KindCommitted, snapshots.KindCommitted, snapshots.KindCommitted}).Draw(t, "kind")
		if kind != snapshots.KindCommitted {
			err = s.Update(ctx, func(tx *metadata.Tx) error {
				_, err := tx.Create(metadata.Create{Number: n, Kind: kind, Key: name, Parent: parent})
				return err
			})
		} else {
			parents = append(parents, name)
			diffID := digest.FromString(fmt.Sprint("layer ", rapid.IntRange(0, 8).Draw(t, "layer")))
			err = s.Update(ctx, func(tx *metadata.Tx) error { return share(tx, n, name, parent, diffID) })
			if rapid.Bool().Draw(t, "named") {
				for range rapid.IntRange(1, 2).Draw(t, "names") {
					names.Images = append(names.Images, storeview.NamedImage{Namespace: "ns", Name: fmt.Sprint("image", len(names.Images)), ChainIDs: []digest.Digest{"sha256:x", digest.Digest(key)}})
				}
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s, names
}

// share commits a snapshot on the layer with that diffID, which is made if it is new.
func share(tx *metadata.Tx, n uint64, name, parent string, diffID digest.Digest) error {
	l, err := tx.LayerByDiffID(diffID)
	if errdefs.IsNotFound(err) {
		l, err = tx.AddLayer(metadata.Layer{Number: n, DiffID: diffID, Usage: snapshots.Usage{Size: int64(1) << (n % 40), Inodes: 1}})
	}
	if err != nil {
		return err
	}
	_, err = tx.Share(metadata.Share{Create: metadata.Create{Number: n, Key: name, Parent: parent}, Layer: l})
	return err
}

// What is said to be reclaimable is what goes when it is removed, as containerd removes
// it: the snapshot and its ancestors, as long as nobody else holds them.
func TestReclaimableIsWhatGoes(t *testing.T) {
	base := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(base, "")
		if err != nil {
			t.Fatal(err)
		}
		s, names := forest(t, dir)
		v, err := storeview.Open(ctx, dir, names)
		if err != nil {
			t.Fatal(err)
		}
		if len(v.Holders) > 0 {
			h := rapid.SampledFrom(v.Holders).Draw(t, "holder")
			want := sizeOf(v, remove(t, s, h))
			if got := h.Split(); got.Reclaimable != want {
				t.Errorf("%s %s: %d bytes are reclaimable, and %d went", h.Kind, h.Name, got.Reclaimable, want)
			}
			checkSums(t, v, h)
		}
		if err := errors.Join(v.Close(), s.Close(), os.RemoveAll(dir)); err != nil {
			t.Fatal(err)
		}
	})
}

func remove(t *rapid.T, s *metadata.Store, h *storeview.Holder) (gone []uint64) {
	for sn := h.Top; sn != nil; sn = sn.Parent {
		if slices.ContainsFunc(sn.Holders, func(other *storeview.Holder) bool { return other != h }) {
			break
		}
		err := s.Update(ctx, func(tx *metadata.Tx) error {
			removed, err := tx.Remove(sn.Name)
			gone = append(gone, removed.Layers...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return gone
}

func sizeOf(v *storeview.View, layers []uint64) (sum int64) {
	for _, n := range layers {
		sum += v.Layer(n).Size
	}
	return sum
}

// checkSums: own and shared are the chain, each layer once.
func checkSums(t *rapid.T, v *storeview.View, h *storeview.Holder) {
	numbers := map[uint64]bool{}
	for sn := h.Top; sn != nil; sn = sn.Parent {
		for _, l := range sn.Layers {
			numbers[l.Number] = true
		}
	}
	var chain []uint64
	for n := range numbers {
		chain = append(chain, n)
	}
	split := h.Split()
	if got, want := split.Own+split.Shared, sizeOf(v, chain); got != want {
		t.Errorf("%s %s: own and shared are %d, and its layers %d", h.Kind, h.Name, got, want)
	}
	for _, l := range v.Layers {
		if len(l.Holders) == 0 {
			t.Errorf("nobody holds layer %d", l.Number)
		}
	}
}

func TestSplitName(t *testing.T) {
	for name, want := range map[string][2]string{
		"k8s.io/12/sha256:x":       {"k8s.io", "sha256:x"},
		"default/1/a/b":            {"default", "a/b"},
		"default/x/a":              {"", "default/x/a"},
		"plain":                    {"", "plain"},
		"a/1":                      {"", "a/1"},
		"":                         {"", ""},
		"a/18446744073709551616/b": {"", "a/18446744073709551616/b"},
	} {
		if ns, key := storeview.SplitName(name); ns != want[0] || key != want[1] {
			t.Errorf("%q: %q and %q, want %q", name, ns, key, want)
		}
	}
}
