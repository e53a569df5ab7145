// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

func writeFormat(t *testing.T, path string, f Format) {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	err = s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, data) })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFormat(t *testing.T) {
	for name, tc := range map[string]struct {
		format Format
		want   func(error) bool
		says   string
	}{
		"ours":                 {Format{Version: FormatVersion}, nil, ""},
		"unknown compatible":   {Format{Version: FormatVersion, Compatible: []string{"later"}}, nil, ""},
		"unknown incompatible": {Format{Version: FormatVersion, Incompatible: []string{"later"}}, errdefs.IsFailedPrecondition, `"later"`},
		"before the first":     {Format{Version: 1}, errdefs.IsFailedPrecondition, "empty root"},
		"newer":                {Format{Version: FormatVersion + 1}, errdefs.IsFailedPrecondition, "version 3"},
		"none":                 {Format{}, errdefs.IsDataLoss, "no valid format"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metadata.db")
			writeFormat(t, path, tc.format)
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := Open(path)
			if tc.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if !tc.want(err) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("the refused store was written to (%v)", err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.db")
	writeFormat(t, good, Format{Version: FormatVersion})
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign.db")
	db, err := bolt.Open(foreign, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("v1")); return err })
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(foreign)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		data []byte
		want func(error) bool
	}{
		"text":               {bytes.Repeat([]byte("no database\n"), 2000), errdefs.IsDataLoss},
		"zeros":              {make([]byte, 1<<16), errdefs.IsDataLoss},
		"cut off":            {data[:3*4096+100], errdefs.IsDataLoss},
		"somebody's":         {theirs, errdefs.IsFailedPrecondition},
		"both metas damaged": {damage(data, 0x40, 0x1040), errdefs.IsDataLoss},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "metadata.db")
			if err := os.WriteFile(path, tc.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path); !tc.want(err) {
				t.Errorf("got %v", err)
			}
			after, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(tc.data, after) {
				t.Errorf("the refused file was written to (%v)", err)
			}
		})
	}
}

func damage(data []byte, at ...int) []byte {
	d := bytes.Clone(data)
	for _, i := range at {
		d[i] ^= 0xff
	}
	return d
}

func TestOpenAfterACrashBeforeTheFirstTransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	populate(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) {
	s := openStore(t)
	populate(t, s)
	want := dump(t, s)
	got := dump(t, reopenCopy(t, s))
	if len(got) != len(want) {
		t.Errorf("%d snapshots became %d", len(want), len(got))
	}
}

func TestClosed(t *testing.T) {
	s := openStore(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if _, err := get(s, "x"); !errdefs.IsUnavailable(err) {
		t.Errorf("read: %v", err)
	}
	if _, err := s.Reserve(context.Background()); !errdefs.IsUnavailable(err) {
		t.Errorf("reserve: %v", err)
	}
	if _, err := remove(s, "x"); !errdefs.IsUnavailable(err) {
		t.Errorf("write: %v", err)
	}
}

func TestNumbersAreNeverReused(t *testing.T) {
	s := openStore(t)
	seen := map[uint64]bool{}
	take := func(s *Store, n int) {
		t.Helper()
		for range n {
			if i := reserve(t, s); i == 0 || seen[i] {
				t.Fatalf("number %d again", i)
			} else {
				seen[i] = true
			}
		}
	}
	take(s, 3)
	// Three crashes, each with numbers handed out that no snapshot has.
	for i := range 3 {
		s = reopenCopy(t, s)
		take(s, 1+i*reserveBlock)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before := s.numbers.next
	s, err := Open(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if s.numbers.next != before {
		t.Errorf("a clean restart lost numbers: %d, then %d", before, s.numbers.next)
	}
	take(s, 2)
}

func TestNumbersInParallel(t *testing.T) {
	s := openStore(t)
	const workers, each = 8, 100
	got := make(chan uint64, workers*each)
	for range workers {
		go func() {
			for range each {
				n, err := s.Reserve(context.Background())
				if err != nil {
					t.Error(err)
				}
				got <- n
			}
		}()
	}
	seen := map[uint64]bool{}
	for range workers * each {
		n := <-got
		if seen[n] {
			t.Fatalf("number %d twice", n)
		}
		seen[n] = true
	}
}

func TestSize(t *testing.T) {
	s := openStore(t)
	if _, err := create(t, s, snapshots.KindActive, "a", "", nil); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Size(); err != nil || n != st.Size() {
		t.Errorf("size %d, %v", n, err)
	}
}
