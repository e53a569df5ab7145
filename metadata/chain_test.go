// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"errors"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

func chainOf(s *Store, n uint64) (numbers []uint64, err error) {
	err = s.View(func(tx *Tx) error {
		chain, err := tx.Chain(n)
		for i := range chain {
			numbers = append(numbers, chain[i].Number)
			chain[i] = Layer{} // a caller's copy is the caller's
		}
		return err
	})
	return numbers, err
}

// A chain that was seen before is the same again, and goes with its snapshot.
func TestChainIsRemembered(t *testing.T) {
	s := openStore(t)
	err := s.Update(context.Background(), func(tx *Tx) error {
		parent := ""
		for i, name := range []string{"a", "b", "c"} {
			n := uint64(i + 1)
			if _, err := tx.Create(Create{Number: n, Kind: snapshots.KindActive, Key: "key", Parent: parent}); err != nil {
				return err
			}
			if _, err := tx.Commit(Commit{Key: "key", Name: name, Layer: Layer{Number: n}}); err != nil {
				return err
			}
			parent = name
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := chainOf(s, 3); err != nil || len(got) != 3 || got[0] != 3 || got[2] != 1 {
			t.Fatalf("the chain is %v, %v", got, err)
		}
	}
	if _, err := remove(s, "c"); err != nil {
		t.Fatal(err)
	}
	if got, err := chainOf(s, 3); !errdefs.IsNotFound(err) {
		t.Errorf("after its snapshot was removed, the chain is %v, %v", got, err)
	}
	if got, err := chainOf(s, 2); err != nil || len(got) != 2 {
		t.Errorf("the chain of the parent is %v, %v", got, err)
	}
}

// What a transaction that was taken back had seen is not remembered.
func TestChainOfWhatWasTakenBack(t *testing.T) {
	s := openStore(t)
	errBack := errors.New("taken back")
	commit := func(layer uint64, result error) error {
		return s.Update(context.Background(), func(tx *Tx) error {
			if tx.number("key") == 0 {
				if _, err := tx.Create(Create{Number: 1, Kind: snapshots.KindActive, Key: "key"}); err != nil {
					return err
				}
			}
			if _, err := tx.Commit(Commit{Key: "key", Name: "name", Layer: Layer{Number: layer}}); err != nil {
				return err
			}
			if _, err := tx.Chain(1); err != nil {
				return err
			}
			return result
		})
	}
	if err := commit(1, errBack); !errors.Is(err, errBack) {
		t.Fatal(err)
	}
	if err := commit(7, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := chainOf(s, 1); err != nil || len(got) != 1 || got[0] != 7 {
		t.Errorf("the chain is %v, %v", got, err)
	}
}
