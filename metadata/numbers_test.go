// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"encoding/binary"
	"testing"
)

func reservedOnDisk(t *testing.T, s *Store) (n uint64) {
	t.Helper()
	err := s.View(func(tx *Tx) error {
		n = binary.BigEndian.Uint64(tx.bucket(bucketMeta).Get(keyReserved))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The next block is reserved before the last number of this one is handed out.
func TestNumbersAreReservedAhead(t *testing.T) {
	s := openStore(t)
	for i := range 3 * reserveBlock {
		n := reserve(t, s)
		mark := reservedOnDisk(t, s)
		if n >= mark {
			t.Fatalf("number %d was handed out while those below %d are reserved", n, mark)
		}
		if i > 0 && mark-n < reserveAhead {
			t.Fatalf("after number %d, those below %d are reserved, which others would have to wait for", n, mark)
		}
	}
}

func TestReservedIsNotLowered(t *testing.T) {
	s := openStore(t)
	for _, limit := range []uint64{1000, 500} {
		if err := s.Update(context.Background(), func(tx *Tx) error { return tx.raiseReserved(limit) }); err != nil {
			t.Fatal(err)
		}
	}
	if n := reservedOnDisk(t, s); n != 1000 {
		t.Errorf("the mark is %d", n)
	}
}
