// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// sampleFile makes a store with a chain and closes it.
func sampleFile(t *testing.T) string {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "metadata.db"))
	if err != nil {
		t.Fatal(err)
	}
	parent := ""
	for _, name := range []string{"k8s.io/1/sha256:a", "k8s.io/300/b", "plain"} {
		labels := map[string]string{snapshots.LabelSnapshotRef: "ref " + name}
		if _, err := create(t, s, snapshots.KindActive, name+"-tmp", parent, labels); err != nil {
			t.Fatal(err)
		}
		c := Commit{Key: name + "-tmp", Name: name, Labels: labels, Layer: Layer{DiffID: digest.FromString(name)}}
		if _, err := commit(s, c); err != nil {
			t.Fatal(err)
		}
		parent = name
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.Path()
}

func TestInspectSound(t *testing.T) {
	path := sampleFile(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Inspect(path)
	if err != nil || len(c.Problems) != 0 || len(c.Snapshots) != 3 || len(c.Layers) != 3 || c.Incomplete || c.ReservedUnreadable {
		t.Errorf("%+v, %v", c, err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("Inspect changed the file (%v)", err)
	}
}

// What fixes write is what the store itself would have written.
func TestFixesRestoreIndexes(t *testing.T) {
	for _, name := range []string{"names", "children", "byref", "refs", "diffids"} {
		path := sampleFile(t)
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte(name)) })
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		c, err := Inspect(path)
		if err != nil || len(c.Problems) != 1 || c.Problems[0].Code != ProblemBucketMissing {
			t.Fatalf("%s: %+v, %v", name, c, err)
		}
		if err := ApplyFixes(path, c.Problems[0].Fixes); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		checkIndexes(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestInspectRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Inspect(filepath.Join(dir, "none")); !errdefs.IsNotFound(err) {
		t.Errorf("no file: %v", err)
	}
	newer := filepath.Join(dir, "newer.db")
	writeFormat(t, newer, Format{Version: FormatVersion + 1})
	if _, err := Inspect(newer); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a newer format: %v", err)
	}
	s := openStore(t)
	if _, err := Inspect(s.Path()); !errdefs.IsUnavailable(err) {
		t.Errorf("a store in use: %v", err)
	}
	if err := ApplyFixes(s.Path(), nil); !errdefs.IsUnavailable(err) {
		t.Errorf("fixing a store in use: %v", err)
	}
}

// Whatever is in the file, the answer is an error or what can be read.
func TestInspectGarbage(t *testing.T) {
	data, err := os.ReadFile(sampleFile(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "garbage.db")
	rapid.Check(t, func(rt *rapid.T) {
		b := bytes.Clone(data)
		for range rapid.IntRange(1, 20).Draw(rt, "bytes") {
			b[rapid.IntRange(0, min(len(b), 64<<10)-1).Draw(rt, "at")] = rapid.Byte().Draw(rt, "byte")
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			rt.Fatal(err)
		}
		if c, err := Inspect(path); err == nil && c == nil {
			rt.Fatal("neither an error nor contents")
		}
	})
}
