// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/internal/testutil/teststore"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/storeview"
)

// Layers are held against their indexes while somebody has the store.
func TestVerify(t *testing.T) {
	store := newLookStore(t)
	held, err := layerstore.Inspect(store.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := held.Close(); err != nil {
			t.Error(err)
		}
	}()
	var rows []verifyRow
	fromJSON(t, store, &rows, "verify", "--json")
	want := map[string]storeview.Verdict{
		teststore.Base.String(): storeview.Sound, teststore.Common.String(): storeview.Sound, teststore.App.String(): storeview.Sound,
		teststore.Other.String(): storeview.Sound, teststore.Old.String(): storeview.Unindexed,
	}
	for _, r := range rows {
		if r.Verdict != want[r.DiffID] || r.Problem != "" || r.Verdict == storeview.Sound && (r.Entries != 2 || r.Bytes == 0) {
			t.Errorf("%+v", r)
		}
	}
	if len(rows) != len(want) {
		t.Errorf("%d layers, want %d", len(rows), len(want))
	}
	rows = nil
	fromJSON(t, store, &rows, "verify", "--json", "1", teststore.Base.String(), "example.test/other:1")
	if len(rows) != 3 {
		t.Errorf("%+v", rows)
	}

	f, err := os.OpenFile(filepath.Join(store.Root, "layers/3/fs/data"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("x"), 100)
	if err := errors.Join(err, f.Close(), os.Truncate(filepath.Join(store.Root, "layers/4/index"), 40)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, exitBadContent, "content"},
		{[]string{"example.test/app:latest"}, exitBadContent, "/data"},
		{[]string{"4"}, exitBadContent, "index: "},
		{[]string{"1", "2"}, exitOK, "sound"},
		{[]string{"10"}, exitNotFound, "has no layer 10"},
		{[]string{"example.test/none"}, exitNotFound, "no image or layer"},
	} {
		stdout, stderr, code := look(t, store, append([]string{"verify"}, c.args...)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%q: exit %d, want %d and %q; stdout %q, stderr %q", c.args, code, c.code, c.says, stdout, stderr)
		}
	}
}
