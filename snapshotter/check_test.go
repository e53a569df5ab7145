// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// checkStore holds the metadata against the directories: every snapshot and
// layer has its directory, every directory its snapshot or layer, and every
// layer somebody who refers to it.
func checkStore(t *testing.T, s *Snapshotter) {
	t.Helper()
	want := map[string]bool{}
	err := s.meta.Walk(context.Background(), func(_ context.Context, sn metadata.Snapshot) error {
		switch sn.Kind {
		case snapshots.KindActive:
			want[filepath.Dir(s.store.UpperPath(sn.Number))] = true
			if sn.Layer != 0 { // staged
				want[filepath.Dir(s.store.LayerPath(sn.Layer))] = true
				checkReferred(t, s, sn, sn.Layer)
				break
			}
			if err := s.store.CheckSnapshot(sn.Number); err != nil {
				t.Errorf("%s: %v", sn.Name, err)
			}
		case snapshots.KindCommitted:
			want[filepath.Dir(s.store.LayerPath(sn.Layer))] = true
			if sn.Patch != 0 {
				want[filepath.Dir(s.store.LayerPath(sn.Patch))] = true
			}
			checkLayer(t, s, sn)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, dir := range []string{"snapshots", "layers", "staging"} {
		entries, err := os.ReadDir(filepath.Join(s.cfg.Root, dir))
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			path := filepath.Join(filepath.Dir(s.store.EmptyPath()), dir, e.Name())
			if !want[path] {
				t.Errorf("nothing refers to %s", path)
			}
		}
	}
	checkEmpty(t, s)
	checkCharges(t, s)
	checkPatches(t, s)
}

// checkPatches makes sure that a layer has one patch for each answer.
func checkPatches(t *testing.T, s *Snapshotter) {
	t.Helper()
	type key struct {
		layer  uint64
		answer digest.Digest
	}
	patches := map[key]uint64{}
	err := s.meta.Walk(context.Background(), func(_ context.Context, sn metadata.Snapshot) error {
		if sn.Patch == 0 {
			return nil
		}
		m, err := s.store.ReadManifest(sn.Patch)
		if err != nil || m.Answer.Validate() != nil {
			t.Errorf("%s: patch %d has the answer %q (%v)", sn.Name, sn.Patch, m.Answer, err)
		}
		k := key{sn.Layer, m.Answer}
		if other := patches[k]; other != 0 && other != sn.Patch {
			t.Errorf("layer %d has two patches with one answer, %d and %d", sn.Layer, other, sn.Patch)
		}
		patches[k] = sn.Patch
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// checkCharges makes sure that what the layers take is charged once.
func checkCharges(t *testing.T, s *Snapshotter) {
	t.Helper()
	var sum snapshots.Usage
	entries, err := os.ReadDir(filepath.Join(s.cfg.Root, "layers"))
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		n, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil {
			continue
		}
		m, err := s.store.ReadManifest(n)
		if err != nil {
			t.Error(err)
		}
		if m.Format == layerstore.FormatDirectory {
			sum.Add(snapshots.Usage{Size: m.Bytes, Inodes: m.Inodes})
		}
	}
	if got, err := charges(s); err != nil || got != sum {
		t.Errorf("snapshots are charged %+v (%v) for layers of %+v", got, err, sum)
	}
}

// checkReferred makes sure that a snapshot keeps a layer, which is what it is called.
func checkReferred(t *testing.T, s *Snapshotter, sn metadata.Snapshot, n uint64) {
	t.Helper()
	if err := s.store.CheckLayer(n); err != nil {
		t.Errorf("%s: %v", sn.Name, err)
	}
	m, err := s.store.ReadManifest(n)
	if err != nil {
		t.Errorf("%s: %v", sn.Name, err)
	}
	err = s.meta.View(func(tx *metadata.Tx) error {
		refs, err := tx.References(n)
		if !slices.Contains(refs, sn.Number) {
			t.Errorf("%s: does not refer to its layer %d, %v do", sn.Name, n, refs)
		}
		layer, layerErr := tx.GetLayer(n)
		if layerErr != nil || m.DiffID != layer.DiffID || m.Empty != layer.Empty || m.OpaqueRoot != layer.OpaqueRoot {
			t.Errorf("%s: layer.json says %+v, metadata %+v (%v)", sn.Name, m, layer, layerErr)
		}
		if layer.DiffID != "" {
			if same, err := tx.LayerByDiffID(layer.DiffID); err != nil || same.Number != n {
				t.Errorf("%s: layer %d is %s, which leads to layer %d, %v", sn.Name, n, layer.DiffID, same.Number, err)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func checkLayer(t *testing.T, s *Snapshotter, sn metadata.Snapshot) {
	t.Helper()
	checkReferred(t, s, sn, sn.Layer)
	m, err := s.store.ReadManifest(sn.Layer)
	if m.Format == layerstore.FormatExternal {
		m.Bytes, m.Inodes = 0, 0 // of this disk
	}
	if sn.Patch != 0 {
		checkReferred(t, s, sn, sn.Patch)
	}
	if sn.Patch != 0 {
		p, err := s.store.ReadManifest(sn.Patch)
		if err != nil || !p.Patch || p.Number != sn.Patch {
			t.Errorf("%s: patch %d: %+v, %v", sn.Name, sn.Patch, p, err)
		}
		m.Bytes += p.Bytes
		m.Inodes += p.Inodes
	}
	if err != nil || m.Number != sn.Layer || m.Bytes != sn.Usage.Size || m.Inodes != sn.Usage.Inodes {
		t.Errorf("%s: layer.json says %+v (%v), metadata %+v", sn.Name, m, err, sn)
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(s.store.LayerPath(sn.Layer)), "work")); !os.IsNotExist(err) {
		t.Errorf("%s: the layer still has its workdir (%v)", sn.Name, err)
	}
}

// checkEmpty makes sure that nobody wrote into the directory that views share.
func checkEmpty(t *testing.T, s *Snapshotter) {
	t.Helper()
	entries, err := os.ReadDir(s.store.EmptyPath())
	if err != nil || len(entries) != 0 {
		t.Errorf("the empty directory holds %v (%v)", entries, err)
	}
}
