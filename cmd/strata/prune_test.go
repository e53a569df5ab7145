// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/layerstore"
)

// A daemon's root, that is: one without images beside it.
func TestPruneRoot(t *testing.T) {
	store := newLookStore(t)
	orphan := filepath.Join(store.Root, "layers/10")
	held, err := layerstore.Inspect(store.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []string{"--dry-run", "--json"} {
		if _, stderr, code := look(t, store, "--root", store.Root, "prune", option); code != exitUnavailable || !strings.Contains(stderr, "is locked by process") {
			t.Errorf("%s of a root in use: exit %d: %s", option, code, stderr)
		}
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	expect := func(removed, there bool, args ...string) {
		t.Helper()
		var rows []pruneRow
		fromJSON(t, store, &rows, append([]string{"--root", store.Root, "prune", "--json"}, args...)...)
		if len(rows) != 1 || rows[0].Kind != string(fsck.CodeLayerOrphan) || rows[0].Path != orphan || rows[0].Removed != removed {
			t.Errorf("%+v", rows)
		}
		if _, err := os.Stat(orphan); (err == nil) != there {
			t.Errorf("the orphan: %v", err)
		}
	}
	expect(false, true, "--dry-run")
	expect(true, false)
	stdout, _, code := look(t, store, "--root", store.Root, "prune", "--json")
	if code != exitOK || stdout != "[]\n" {
		t.Errorf("exit %d: %s", code, stdout)
	}
}

// In an image store, what no image has goes, too.
func TestPruneImageStore(t *testing.T) {
	testutil.RequireRoot(t)
	dir := filepath.Join(t.TempDir(), "images")
	s, err := imagestore.Open(context.Background(), imagestore.Options{Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx := s.Context(context.Background())
	if _, err := s.Snapshotter().Prepare(ctx, "made", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.Snapshotter().Commit(ctx, "unused", "made"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"prune", "--dry-run"}, "/unused"},
		{[]string{"prune"}, "1 snapshots"},
		{[]string{"ls", "--format", "{{.Key}}"}, ""},
	} {
		var out, stderr strings.Builder
		code := run(append([]string{name, "--root", dir}, c.args...), nil, &out, &stderr)
		if code != exitOK || !strings.Contains(out.String(), c.says) || c.says == "" && out.String() != "" {
			t.Errorf("%q: exit %d, want %q; stdout %q, stderr %q", c.args, code, c.says, out.String(), stderr.String())
		}
	}
	report, err := fsck.Check(context.Background(), fsck.Options{Root: filepath.Join(dir, "store")})
	if err != nil || report.ExitCode() != fsck.ExitClean {
		t.Errorf("%+v, %v", report, err)
	}
}
