// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/layerstore"
)

// The command is the daemon's, which has its tests; here is what is different.
func TestFsckOfAnImageStore(t *testing.T) {
	store := newLookStore(t)
	expect := func(code int, says string, args ...string) {
		t.Helper()
		stdout, stderr, got := look(t, store, args...)
		if got != code || !strings.Contains(stdout+stderr, says) {
			t.Errorf("%q: exit %d, want %d and %q; stdout %q, stderr %q", args, got, code, says, stdout, stderr)
		}
	}
	expect(fsck.ExitLeftovers, "layer-orphan", "fsck")
	expect(fsck.ExitLeftovers, "layer-orphan", "--root", store.Root, "fsck", "--usage", "--json")
	held, err := layerstore.Inspect(store.Root)
	if err != nil {
		t.Fatal(err)
	}
	expect(fsck.ExitNotChecked, "is locked by process", "fsck")
	expect(exitOK, "default/", "ls") // looking needs no lock
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	expect(fsck.ExitRepaired, "repaired: layer-orphan", "fsck", "--repair")
	expect(fsck.ExitClean, ": clean", "fsck")
	expect(fsck.ExitUsage, "--help", "fsck", "--nothing")
	expect(fsck.ExitUsage, `unknown argument "x"`, "fsck", "x")
	expect(fsck.ExitNotChecked, "does not exist", "--root", "/nonexistent", "fsck")
}
