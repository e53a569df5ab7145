// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
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
}

func checkLayer(t *testing.T, s *Snapshotter, sn metadata.Snapshot) {
	t.Helper()
	if err := s.store.CheckLayer(sn.Layer); err != nil {
		t.Errorf("%s: %v", sn.Name, err)
	}
	m, err := s.store.ReadManifest(sn.Layer)
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
	err = s.meta.View(func(tx *metadata.Tx) error {
		refs, err := tx.References(sn.Layer)
		if len(refs) == 0 {
			t.Errorf("%s: nothing refers to layer %d", sn.Name, sn.Layer)
		}
		return err
	})
	if err != nil {
		t.Error(err)
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
