// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// Copies are taken of a store while snapshots come and go. Each is a state that the store
// had: without contradictions, with as many snapshots as the label of the latest says,
// and none is older than the one before it.
func TestInspectCopyOfAStoreInUse(t *testing.T) {
	s := openStore(t)
	ctx := context.Background()
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() { done <- comeAndGo(ctx, s, &stop) }()
	last := 0
	for i := 0; i < 40 || last < 20; i++ {
		c, err := InspectCopy(ctx, s.Path())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range c.Problems {
			t.Errorf("%s: %s", p.Code, p.Text)
		}
		newest, count := 0, -1
		for _, sn := range c.Snapshots {
			made, err := strconv.Atoi(sn.Labels["made"])
			if err != nil {
				t.Fatal(err)
			}
			if made > newest {
				newest = made
				if count, err = strconv.Atoi(sn.Labels["count"]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if count >= 0 && count != len(c.Snapshots) {
			t.Errorf("after the %dth there were %d snapshots, the copy has %d", newest, count, len(c.Snapshots))
		}
		if newest < last {
			t.Errorf("a copy shows number %d after one that showed %d", newest, last)
		}
		last = newest
	}
	stop.Store(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// comeAndGo makes a snapshot and removes some older ones in each transaction. The label
// of each says how many there were when its transaction ended.
func comeAndGo(ctx context.Context, s *Store, stop *atomic.Bool) error {
	random := rand.New(rand.NewPCG(1, 2))
	var there []string
	for i := 1; !stop.Load(); i++ {
		n, err := s.Reserve(ctx)
		if err != nil {
			return err
		}
		var gone []string
		for len(there) > 20 || len(there) > 0 && random.IntN(3) == 0 {
			at := random.IntN(len(there))
			gone = append(gone, there[at])
			there = append(there[:at], there[at+1:]...)
		}
		key := fmt.Sprintf("k/%d/%d", i, random.Int())
		there = append(there, key)
		labels := map[string]string{"made": strconv.Itoa(i), "count": strconv.Itoa(len(there))}
		err = s.Update(ctx, func(tx *Tx) error {
			for _, name := range gone {
				if _, err := tx.Remove(name); err != nil {
					return err
				}
			}
			_, err := tx.Create(Create{Number: n, Kind: snapshots.KindActive, Key: key, Labels: labels})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// What Inspect refuses is refused of a copy, too, for the same reasons.
func TestInspectCopyRefuses(t *testing.T) {
	dir := t.TempDir()
	make := func(name string, fn func(tx *bolt.Tx) error) string {
		path := filepath.Join(dir, name)
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Update(fn); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	format := func(text string) func(tx *bolt.Tx) error {
		return func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket(bucketMeta)
			if err != nil {
				return err
			}
			return b.Put(keyFormat, []byte(text))
		}
	}
	for name, c := range map[string]struct {
		fn func(tx *bolt.Tx) error
		is func(error) bool
	}{
		"newer":   {format(`{"version":99}`), errdefs.IsFailedPrecondition},
		"unknown": {format(`{"version":2,"incompatible":["x"]}`), errdefs.IsFailedPrecondition},
		"garbage": {format(`{`), errdefs.IsDataLoss},
		"foreign": {func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("v1")); return err }, errdefs.IsFailedPrecondition},
		"nothing": {func(*bolt.Tx) error { return nil }, errdefs.IsNotFound},
	} {
		path := make(name, c.fn)
		if _, err := InspectCopy(context.Background(), path); !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Inspect(path); !c.is(err) {
			t.Errorf("%s: Inspect says otherwise: %v", name, err)
		}
	}
}
