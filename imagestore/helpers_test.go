// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newRoot is a place for a store, which is checked when the test ends.
func newRoot(t testing.TB) string {
	t.Helper()
	testutil.RequireRoot(t)
	root := filepath.Join(testutil.Tmpfs(t), "images")
	t.Cleanup(func() {
		checkRoot(t, root)
		// containerd's content store leaves a file to the finalizer when it asks for
		// fs-verity, and the tmpfs can't be unmounted before.
		runtime.GC()
		runtime.GC()
	})
	return root
}

// open opens a store, which is closed when the test ends.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// checkRoot runs fsck on the layers of a closed store.
func checkRoot(t testing.TB, root string) {
	t.Helper()
	report, err := fsck.Check(context.Background(), fsck.Options{Root: filepath.Join(root, storeName)})
	must(t, err)
	for _, f := range report.Findings {
		t.Errorf("fsck: %+v", f)
	}
}
