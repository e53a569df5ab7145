// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/layerindex"
)

// plainLayer is a layer of n files like most.
func plainLayer(t *testing.T, n int) []byte {
	t.Helper()
	layer := layertest.Layer{}
	for i := range n {
		if i%50 == 0 {
			layer = append(layer, dir(fmt.Sprintf("usr/share/doc/package%04d", i/50)))
		}
		layer = append(layer, file(fmt.Sprintf("usr/share/doc/package%04d/file%02d", i/50, i%50), strings.Repeat("x", 100+i%3000)))
	}
	blob, err := layer.Tar()
	must(t, err)
	return blob
}

// applyCounting extracts blob and returns what that allocated.
func applyCounting(t *testing.T, blob []byte, opts archive.Options) (allocs, bytes uint64) {
	t.Helper()
	base := testutil.Tmpfs(t)
	var before, after runtime.MemStats
	must(t, withDir(base, func(dir *os.File) error {
		runtime.ReadMemStats(&before)
		_, err := archive.Apply(context.Background(), source(blob), dir, opts)
		runtime.ReadMemStats(&after)
		return err
	}))
	return after.Mallocs - before.Mallocs, after.TotalAlloc - before.TotalAlloc
}

// leastOf is the least that some extractions allocated. Buffers are kept in pools, which
// lose some by chance: that only ever adds.
func leastOf(t *testing.T, blob []byte, options func() archive.Options) (allocs, bytes uint64) {
	t.Helper()
	for i := range 8 {
		a, b := applyCounting(t, blob, options())
		if i == 0 {
			allocs, bytes = a, b
		}
		allocs, bytes = min(allocs, a), min(bytes, b)
	}
	return allocs, bytes
}

// What an index costs for each entry: next to no allocation, and a few bytes of disk.
func TestIndexCosts(t *testing.T) {
	testutil.RequireRoot(t)
	const n = 10_000
	blob := plainLayer(t, n)
	index, err := memoryFile()
	must(t, err)
	defer func() { must(t, index.Close()) }()
	plain, plainBytes := leastOf(t, blob, func() archive.Options { return archive.Options{} })
	indexed, indexedBytes := leastOf(t, blob, func() archive.Options {
		must(t, index.Truncate(0))
		_, err := index.Seek(0, io.SeekStart)
		must(t, err)
		return archive.Options{Index: layerindex.NewWriter(index)}
	})
	st, err := index.Stat()
	must(t, err)
	allocs, bytes := float64(indexed)/n-float64(plain)/n, (float64(indexedBytes)-float64(plainBytes))/n
	t.Logf("an entry: %.3f allocations and %.1f bytes more than %.1f and %.0f; %.1f bytes of index", allocs, bytes, float64(plain)/n, float64(plainBytes)/n, float64(st.Size())/n)
	if allocs > 0.1 || bytes > 150 || st.Size() > 50*n {
		t.Error("too much")
	}
}
