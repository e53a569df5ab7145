// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	testutil.RequireRoot(t)
	s, err := Open(Config{Root: filepath.Join(t.TempDir(), "root")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func makeSnapshot(t *testing.T, s *Store, n uint64) {
	t.Helper()
	if err := s.MakeSnapshot(n, DefaultAttrs()); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	list := []string{}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// emptyTrash deletes until nothing is left: a deep tree leaves parts behind that
// only show up afterwards.
func emptyTrash(t *testing.T, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for len(names(t, filepath.Join(s.path, trashDir))) > 0 {
		if err := s.EmptyTrash(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// fixed answers Sweep and Recover.
type fixed struct{ snapshots, layers []uint64 }

func (f fixed) Snapshots(asked []uint64) (map[uint64]bool, error) { return among(f.snapshots, asked) }
func (f fixed) Layers(asked []uint64) (map[uint64]bool, error)    { return among(f.layers, asked) }

func among(have, asked []uint64) (map[uint64]bool, error) {
	yes := map[uint64]bool{}
	for _, a := range asked {
		for _, h := range have {
			yes[a] = yes[a] || a == h
		}
	}
	return yes, nil
}
