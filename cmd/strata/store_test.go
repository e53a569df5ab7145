// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/internal/testutil/teststore"
)

// Layers go from an image store, or a daemon's root, to an additional store, which is
// listed and found to be sound, until something in it changes.
func TestStoreCommands(t *testing.T) {
	store := newLookStore(t)
	dir := filepath.Join(filepath.Dir(store.Dir), "additional")
	var rows []storeRow
	fromJSON(t, store, &rows, "store", "export", "--json", "example.test/app:1", "example.test/app:latest", teststore.Old.String(), dir)
	expectLayers(t, rows, teststore.Base, teststore.Common, teststore.App, teststore.Old)
	for _, r := range rows {
		if want := digest.FromString("blob of " + r.DiffID).String(); len(r.Blobs) != 1 || r.Blobs[0] != want {
			t.Errorf("%s: blobs %v, want %s", r.DiffID, r.Blobs, want)
		}
	}
	stdout, stderr, code := look(t, store, "--root", store.Root, "store", "export", "--containerd-address=", teststore.Other.String(), dir)
	if code != exitOK || !strings.Contains(stdout, teststore.Other.String()) {
		t.Errorf("exit %d: %s%s", code, stdout, stderr)
	}
	all := []digest.Digest{teststore.Base, teststore.Common, teststore.App, teststore.Old, teststore.Other}
	for _, command := range []string{"list", "verify"} {
		rows = nil
		fromJSON(t, store, &rows, "store", command, "--json", dir)
		expectLayers(t, rows, all...)
	}

	hurt := filepath.Join(dir, "layers/sha256", teststore.App.Encoded(), "fs/data")
	if err := errors.Join(os.Truncate(hurt, 1)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"verify", dir}, exitBadContent, "its content is not what was recorded"},
		{[]string{"verify", dir, teststore.App.String()}, exitBadContent, teststore.App.String()},
		{[]string{"verify", dir, teststore.Base.String()}, exitOK, teststore.Base.String()},
		{[]string{"verify", "--verify", "metadata", dir, teststore.App.String()}, exitBadContent, "data"},
		{[]string{"verify", dir, digest.FromString("x").String()}, exitBadContent, "not there"},
		{[]string{"verify", dir, "x"}, exitUsage, "diffID"},
		{[]string{"verify", "--verify", "x", dir}, exitUsage, "--verify"},
		{[]string{"verify", "--verify", "none", dir}, exitOK, teststore.App.String()},
		{[]string{"list", store.Dir}, exitFailed, "no store"},
		{[]string{"list", "/nonexistent"}, exitNotFound, "not there"},
		{[]string{"export", "example.test/no:1", dir}, exitNotFound, "no image or layer"},
		{[]string{"export", "example.test/app:1", store.Dir}, exitFailed, "name an empty directory"},
		{[]string{"export", "example.test/app:1"}, exitUsage, "missing"},
	} {
		stdout, stderr, code := look(t, store, append([]string{"store"}, c.args...)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%q: exit %d, want %d and %q; stdout %q, stderr %q", c.args, code, c.code, c.says, stdout, stderr)
		}
	}
}

func expectLayers(t *testing.T, rows []storeRow, want ...digest.Digest) {
	t.Helper()
	got := map[string]bool{}
	for _, r := range rows {
		got[r.DiffID] = true
		if r.Problem != "" || r.Inodes != 2 {
			t.Errorf("%+v", r)
		}
	}
	for _, d := range want {
		if !got[d.String()] {
			t.Errorf("layer %s is missing", d)
		}
	}
	if len(rows) != len(want) {
		t.Errorf("%d layers, want %d", len(rows), len(want))
	}
}
