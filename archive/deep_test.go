// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// TestDeepTrees makes, replaces and hides trees that are deeper than there are
// descriptors.
func TestDeepTrees(t *testing.T) {
	h := kernelHouse(t)
	limitFiles(t, 400)
	deep := strings.Repeat("d/", 600) + "x"
	for _, c := range []struct {
		name  string
		layer layertest.Layer
	}{
		{"replaced", layertest.Layer{file(deep, "x"), file("e", "e"), file("d", "now a file")}},
		{"deleted", layertest.Layer{file(deep, "x"), whiteout("d")}},
		{"kept", layertest.Layer{file(deep, "x"), opaque("")}},
		{"extracted again", layertest.Layer{file(deep, "x"), symlink("l", "d"), file("l/y", "y")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			blob, err := c.layer.Tar()
			must(t, err)
			x, err := h.extract(blob)
			must(t, err)
			if entries, err := os.ReadDir(x.dir); x.result.Needs.Mounted != "" && len(entries) > 0 {
				t.Errorf("not empty again: %v, %v", entries, err)
			}
			root, err := h.mkdir("root")
			must(t, err)
			_, err = h.plain(root, blob)
			must(t, err)
		})
	}
}

// limitFiles lets the process have n open files until the test ends.
func limitFiles(t *testing.T, n uint64) {
	t.Helper()
	var old syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old))
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: old.Max}))
	t.Cleanup(func() { must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)) })
}
