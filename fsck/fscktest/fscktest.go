// SPDX-License-Identifier: Apache-2.0

// Package fscktest ends tests of whatever writes to a root with a look at that root:
// package fsck must find nothing, and nothing may be mounted in it.
//
// Only tests import it.
package fscktest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// T is what a check needs of a test, also of one of rapid's.
type T interface {
	Helper()
	Errorf(format string, args ...any)
}

// always are the codes that are no fault of who wrote the root: deletion goes on with
// the next start, external layers are mounted by it, two layers of one diffID are
// allowed, and what a test has mounted need not be unmounted before what it shows is
// removed.
var always = []fsck.Code{
	fsck.CodeTrashLeft, fsck.CodeExternalUnmounted, fsck.CodeMountUnknown, "diffid-twice",
}

// Clean fails the test unless fsck finds nothing in a root but what has one of the codes
// of except. Nobody may have the root open. One that does not exist, or was never one, is
// clean.
func Clean(t T, root string, except ...fsck.Code) {
	t.Helper()
	if _, err := os.Lstat(root); errors.Is(err, fs.ErrNotExist) {
		return
	}
	report, err := fsck.Check(context.Background(), fsck.Options{Root: root, Usage: true})
	if err != nil {
		t.Errorf("fsck %s: %v", root, err)
		return
	}
	for _, f := range report.Findings {
		if !slices.Contains(always, f.Code) && !slices.Contains(except, f.Code) {
			t.Errorf("fsck: %s: %s: %+v: %s", f.Severity, f.Code, f.Subject, f.Message)
		}
	}
}

// damaged are the codes that tests brought about on purpose, by root.
var damaged = struct {
	sync.Mutex
	codes map[string][]fsck.Code
}{codes: map[string][]fsck.Code{}}

// Damaged says that a test brings findings about on purpose: AtEnd ignores them.
func Damaged(root string, codes ...fsck.Code) {
	damaged.Lock()
	defer damaged.Unlock()
	damaged.codes[root] = append(damaged.codes[root], codes...)
}

func damagedOf(root string) []fsck.Code {
	damaged.Lock()
	defer damaged.Unlock()
	return slices.Clone(damaged.codes[root])
}

// AtEnd calls Clean at the end of a test that has not failed until then, and looks for
// mounts that are left below the root. It has to be called before anything that closes
// the root in a cleanup of its own: cleanups run last in, first out.
func AtEnd(t testing.TB, root string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			return // that says more
		}
		Clean(t, root, damagedOf(root)...)
		for _, point := range testutil.MountsUnder(t, root) {
			// A file system that the test put the root on goes later.
			if strings.HasPrefix(point, root+"/") {
				t.Errorf("leaked mount: %s", point)
			}
		}
	})
}
