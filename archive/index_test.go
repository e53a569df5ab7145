// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/layerindex"
)

// memoryFile is a file that nobody else sees and that goes with its descriptor.
func memoryFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("index", unix.MFD_CLOEXEC)
	return os.NewFile(uintptr(fd), "index"), err
}

// applyIndexed is archive.Apply with an index, which the directory is held against: what
// is extracted anywhere in these tests is what the index says, or the index says that it
// is of no use.
func applyIndexed(dir *os.File, blob []byte, opts archive.Options) (result archive.Result, err error) {
	index, err := memoryFile()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	opts.Index = layerindex.NewWriter(index)
	result, err = archive.Apply(context.Background(), source(blob), dir, opts)
	if err != nil {
		return result, err
	}
	if !result.Indexed {
		w := layerindex.NewWriter(index)
		err := errors.Join(index.Truncate(0), seekStart(index), layerindex.Build(context.Background(), dir, w, nil), w.Finish())
		if err != nil {
			return result, err
		}
	}
	return result, verify(dir, index)
}

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

func verify(dir, index *os.File) error {
	var found error
	_, err := layerindex.Verify(context.Background(), dir, index, layerindex.Options{}, func(p layerindex.Problem) error {
		found = errors.Join(found, fmt.Errorf("index: %s %q: %s", p.Kind, p.Path, p.Text))
		return nil
	})
	return errors.Join(err, found)
}

// What Apply records while it extracts is what is on the disk afterwards.
func TestIndexed(t *testing.T) {
	large := strings.Repeat("0123456789", 100_000)
	for _, c := range []struct {
		name    string
		layer   layertest.Layer
		indexed bool
	}{
		{"nothing", layertest.Layer{}, true},
		{"files", layertest.Layer{file("a", "a"), file("d/empty", ""), dir("d"), file("d/large", large), file("e/f/g", "implicit")}, true},
		{"owners and modes", layertest.Layer{file("a", "a").Owner(7, 8).Perm(0o4711), dir("d").Owner(9, 9).Perm(0o1777), symlink("s", "a").Owner(1, 2)}, true},
		{"times", layertest.Layer{
			file("a", "a").At(1, 0), file("b", "b").At(-5, 0), file("c", "c").At(1<<33, 5), file("d", "d").At(5, 123_456_789),
			file("e", "e").At(6, 987_654_321), symlink("s", "a").At(7, 111_111_111), dir("f").At(8, 1), dir("g").At(-1, 0), file("h", "h").At(1<<40, 0), // no file system of a test keeps that
		}, true},
		{"attributes", layertest.Layer{
			file("a", "a").Xattr("user.one", "1").Xattr("user.two", large[:3000]), file("b", "b").Xattr("security.capability", capability),
			file("c", "c").Xattr("system.posix_acl_access", acl), dir("d").Xattr("system.posix_acl_default", acl), file("d/e", "e"),
			file("f", "f").Xattr("trusted.left.out", "x"),
		}, true},
		{"nodes", layertest.Layer{layertest.Fifo("p"), layertest.Device(layertest.TypeChar, "c", 5, 6), layertest.Device(layertest.TypeBlock, "b", 300, 7)}, true},
		{"deletions", layertest.Layer{whiteout("a"), whiteout("d/b"), opaque("e"), file("e/f", "f"), opaque("g/h")}, true},
		{"hard links", layertest.Layer{file("a", large), hardlink("b", "a"), hardlink("d/c", "b"), symlink("s", "a"), hardlink("t", "s")}, true},
		{"hard links that say something else", layertest.Layer{
			file("a", "a"), hardlink("b", "a").Perm(0o600), hardlink("c", "b").Owner(3, 3), file("x", "x").Xattr("user.one", "1"),
			hardlink("y", "x").Xattr("user.two", "2"), hardlink("z", "y").At(1, 1),
		}, true},
		{"a directory twice", layertest.Layer{dir("d").Perm(0o700), file("d/a", "a"), dir("d").Perm(0o750)}, true},
		{"a file twice", layertest.Layer{file("a", "a"), file("a", "b")}, false},
		{"a file that is deleted", layertest.Layer{file("a", "a"), whiteout("a")}, false},
		{"a hard link whose target is replaced", layertest.Layer{file("a", "a"), hardlink("b", "a"), file("a", "c")}, false},
		{"onto others", layertest.Layer{hardlink("b", "below")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			blob, err := c.layer.Tar()
			must(t, err)
			for _, override := range []bool{false, true} {
				h := kernelHouse(t)
				h.options.OverrideStat = override
				x, err := h.extract(blob)
				must(t, err)
				if x.result.Indexed != (c.indexed && !override) {
					t.Errorf("override %v: indexed: %v", override, x.result.Indexed)
				}
			}
		})
	}
}

// More files with several names than are remembered: the index is either right or not
// there.
func TestIndexOfManyLinks(t *testing.T) {
	layer := layertest.Layer{}
	for i := range 8300 {
		a := fmt.Sprintf("d/a%d", i)
		layer = append(layer, file(a, "a"), hardlink(fmt.Sprintf("d/b%d", i), a))
	}
	for name, c := range map[string]struct {
		last    layertest.Entry
		indexed bool
	}{
		"same":      {hardlink("last", "d/a8299"), true},
		"first":     {hardlink("last", "d/a1").Perm(0o600), true},
		"forgotten": {hardlink("last", "d/a8299").Perm(0o600), false},
	} {
		t.Run(name, func(t *testing.T) {
			blob, err := append(layer[:len(layer):len(layer)], c.last).Tar()
			must(t, err)
			x, err := newHouse(t, testutil.Tmpfs(t), archive.Options{}).extract(blob)
			must(t, err)
			if x.result.Indexed != c.indexed {
				t.Errorf("indexed: %v", x.result.Indexed)
			}
		})
	}
}

// The checksum of a file with holes does not go through them.
func TestIndexOfHoles(t *testing.T) {
	const size, first, second = 1 << 40, 5<<20 + 100, 1<<40 - 3
	data := strings.Repeat("data", 2500) + "end"
	table := fmt.Sprintf("2\n%d\n%d\n%d\n%d\n", first, len(data)-3, int64(second), 3)
	blob := slices.Concat(
		rawHeader('x', "PaxHeaders/x", paxRecords(
			"GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "sp", "GNU.sparse.realsize", fmt.Sprint(int64(size)))),
		rawHeader('0', "x", []byte(table+strings.Repeat("\x00", 512-len(table))+data)),
		make([]byte, 1024))
	h := newHouse(t, testutil.Tmpfs(t), archive.Options{}) // ext4 has no files of that size
	h.options.Limits.Bytes = 0
	h.options.Limits.Entries = 5
	h.options.Limits.PathBytes, h.options.Limits.NameBytes, h.options.Limits.Xattrs = 1000, 255, 1000
	x, err := h.extract(blob)
	must(t, err)
	if !x.result.Indexed {
		t.Error("not indexed")
	}
}
