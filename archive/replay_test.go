// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// replay is onto without the layer's blob.
func (h *house) replay(below chain, x extracted) (chain, error) {
	return h.write(below, func(root string) error {
		return withDirs([]string{x.dir, root}, func(dirs []*os.File) error {
			_, err := archive.Replay(context.Background(), dirs[0], x.result.Needs, dirs[1], h.options)
			return err
		})
	})
}

// replayed is parallel for layers whose blobs are not at hand where they turn out to be
// needed, as far as they have an order.
func (h *house) replayed(blobs [][]byte) (chain, error) {
	layers, err := h.extractAll(blobs)
	if err != nil {
		return nil, err
	}
	for i := range layers {
		if len(layers[i].result.Needs.Order) > 0 {
			layers[i].blob = nil
		}
	}
	return h.joinAll(layers)
}

var mtimes = regexp.MustCompile(` mtime=\d+`)

// hideNow takes the times out of a tree that were set while applying.
func hideNow(tree layertest.Tree) layertest.Tree {
	hour := time.Now().Add(-time.Hour).Unix()
	for path, line := range tree {
		tree[path] = mtimes.ReplaceAllStringFunc(line, func(m string) string {
			if sec, err := strconv.ParseInt(strings.TrimPrefix(m, " mtime="), 10, 64); err == nil && sec > hour {
				return " mtime=" + layertest.Now
			}
			return m
		})
	}
	return tree
}

// sameReplay extracts a layer onto a chain of its blob and of its directory.
func (h *house) sameReplay(below chain, x extracted) error {
	want, errWant := h.onto(below, x.blob)
	got, errGot := h.replay(below, x)
	if (errWant == nil) != (errGot == nil) || errGot != nil && !errdefs.IsInvalidArgument(errGot) {
		return fmt.Errorf("the blob: %w, the directory: %w", errWant, errGot)
	}
	if errWant != nil {
		return nil
	}
	wantTree, err := h.tree(want)
	if err != nil {
		return err
	}
	gotTree, err := h.tree(got)
	if err != nil {
		return err
	}
	if diffs := hideNow(wantTree).Diff(hideNow(gotTree)); len(diffs) > 0 {
		return fmt.Errorf("onto the layers below:\n%s", strings.Join(diffs, "\n"))
	}
	return nil
}

// Whatever the layers below are, a layer that has an order comes out of its directory as it
// does of its blob: links below lead its entries to where others of them are.
func TestRandomReplays(t *testing.T) {
	testutil.RequireRoot(t)
	h := newHouse(t, testutil.Tmpfs(t), archive.Options{})
	replays := 0
	rapid.Check(t, func(t *rapid.T) {
		defer func() {
			if err := h.clear(); err != nil {
				t.Fatal(err)
			}
		}()
		below, err := tars(layertest.Image().Draw(t, "below"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.allOnto(below)
		if err != nil {
			return
		}
		blobs, err := tars(layertest.Image().Draw(t, "above"))
		if err != nil {
			t.Fatal(err)
		}
		for _, blob := range blobs {
			x, err := h.extract(blob)
			if err != nil || len(x.result.Needs.Order) == 0 {
				continue
			}
			replays++
			if err := h.sameReplay(c, x); err != nil {
				t.Fatal(err)
			}
		}
	})
	if replays == 0 {
		t.Error("no layer had an order")
	}
	t.Logf("%d layers", replays)
}

// The order of entries decides where the layers below have links.
func TestReplayKeepsTheOrder(t *testing.T) {
	dir, file, link := layertest.Dir, layertest.File, layertest.Symlink
	below := layertest.Layer{dir("usr"), dir("usr/lib").Owner(3, 4), link("lib", "usr/lib"), file("usr/lib/old", "old"), link("own", "usr")}
	for name, layer := range map[string]layertest.Layer{
		"one way":           {file("lib/x", "lib"), file("usr/lib/x", "usr/lib")},
		"the other":         {file("usr/lib/x", "usr/lib"), file("lib/x", "lib")},
		"named later":       {file("lib/x", "x"), dir("lib"), file("lib/y", "y")},
		"whiteout":          {layertest.Whiteout("lib/old"), file("usr/lib/new", "")},
		"whiteout and file": {layertest.Whiteout("usr/lib/old"), file("lib/old", "new")},
		"opaque":            {file("lib/x", "x"), layertest.Opaque("usr/lib")},
		"hard links":        {file("lib/x", "x"), file("usr/lib/x", "other"), layertest.Hardlink("y", "lib/x"), layertest.Hardlink("lib/z", "usr/lib/x")},
		"replaced by link":  {file("lib/x", "x"), link("usr", "elsewhere")},
		"through another":   {file("own/lib/x", "x"), file("lib/x", "lib")},
	} {
		t.Run(name, func(t *testing.T) {
			h := kernelHouse(t)
			blobs, err := tars([]layertest.Layer{below, layer})
			if err != nil {
				t.Fatal(err)
			}
			c, err := h.allOnto(blobs[:1])
			if err != nil {
				t.Fatal(err)
			}
			x, err := h.extract(blobs[1])
			if err != nil {
				t.Fatal(err)
			}
			if len(x.result.Needs.Order) == 0 {
				t.Fatalf("it has no order: %+v", x.result.Needs)
			}
			if err := h.sameReplay(c, x); err != nil {
				t.Error(err)
			}
		})
	}
}

// What entries can have besides names, and what there is no order of.
func TestReplayOfEverything(t *testing.T) {
	h := kernelHouse(t)
	long := strings.Repeat("long/", 100)
	full := layertest.Layer{
		layertest.File("d/file", strings.Repeat("content", 100_000)).Perm(0o6755).Owner(1<<31, 70000),
		layertest.File("d/"+long+"x", "x"), layertest.File("d/\xff\n=", "odd name"), layertest.File("d/empty", ""),
		layertest.Symlink("d/link", strings.Repeat("x/", 200)).Owner(5, 6), layertest.Hardlink("d/again", "d/file"), layertest.Hardlink("d/link2", "d/link"),
		layertest.Fifo("d/fifo").Perm(0o640).Owner(1, 2), layertest.Device(layertest.TypeChar, "d/char", 5, 1000),
		layertest.Device(layertest.TypeBlock, "d/block", 7, 3).At(1, 1), layertest.Dir("d/sub").Perm(0o3777).Owner(8, 9), layertest.File("d/sub/f", "f"),
		layertest.Whiteout("d/gone"), layertest.Dir("d/opaque"), layertest.Opaque("d/opaque"), layertest.File("d/opaque/f", "f"),
	}
	for i := range full {
		if full[i].Type == layertest.TypeFile || full[i].Type == layertest.TypeDir {
			if !strings.Contains(full[i].Name, ".wh.") {
				full[i] = full[i].Xattr("user.a", "a\x00b").Xattr("user.empty", "").At(1234567890, 123456789)
			}
		}
		if full[i].Type == layertest.TypeFile {
			full[i] = full[i].Xattr("security.capability", capability)
		}
	}
	blobs, err := tars([]layertest.Layer{{layertest.Dir("real"), layertest.File("real/gone", ""), layertest.Dir("real/opaque"), layertest.File("real/opaque/old", ""), layertest.Symlink("d", "real")}, full})
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.allOnto(blobs[:1])
	if err != nil {
		t.Fatal(err)
	}
	x, err := h.extract(blobs[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := h.sameReplay(c, x); err != nil {
		t.Error(err)
	}
	for name, layer := range map[string]layertest.Layer{
		"nothing needed":   {layertest.Dir("d"), layertest.File("d/f", "")},
		"removed its own":  {layertest.File("d/f", ""), layertest.Whiteout("d/f")},
		"replaced its own": {layertest.File("d/f", "1"), layertest.File("d/f", "2")},
		"through a link":   {layertest.Symlink("l", "d"), layertest.File("l/f", "")},
	} {
		blobs, err := tars([]layertest.Layer{layer})
		if err != nil {
			t.Fatal(err)
		}
		if x, err := h.extract(blobs[0]); err != nil || len(x.result.Needs.Order) > 0 {
			t.Errorf("%s: an order of %d bytes, %v", name, len(x.result.Needs.Order), err)
		}
	}
}

// An order, or a directory, that is damaged is an error and no other layer.
func TestReplayOfWhatIsDamaged(t *testing.T) {
	h := kernelHouse(t)
	blobs, err := tars([]layertest.Layer{{layertest.File("d/file", "content"), layertest.Hardlink("d/link", "d/file")}})
	if err != nil {
		t.Fatal(err)
	}
	x, err := h.extract(blobs[0])
	if err != nil {
		t.Fatal(err)
	}
	whole := x.result.Needs.Order
	try := func(what string, order []byte, is func(error) bool) {
		t.Helper()
		y := x
		y.result.Needs.Order = order
		if _, err := h.replay(nil, y); !is(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	try("nothing damaged", whole, func(err error) bool { return err == nil })
	try("no order", nil, errdefs.IsDataLoss)
	try("a newer one", append([]byte{2}, whole[1:]...), errdefs.IsFailedPrecondition)
	for _, path := range []string{"..", "d/..", "../fs", "/d/file", "d//file", "d/file/"} {
		try(path, []byte(orderOf(path)), errdefs.IsDataLoss)
	}
	for i := 2; i < len(whole); i++ {
		try(fmt.Sprintf("cut at %d", i), whole[:i], func(err error) bool { return errdefs.IsDataLoss(err) || i == len(orderOf("d/file")) && err == nil })
	}
	if err := os.Remove(filepath.Join(x.dir, "d/file")); err != nil {
		t.Fatal(err)
	}
	try("a file that is gone", whole, errdefs.IsDataLoss)
}

// orderOf is the order of a layer of one entry.
func orderOf(path string) string { return "\x01e\x00" + string(rune(len(path))) + path }

// Who applies may stop reading, and cancel: nothing is left running.
func TestReplayThatIsCancelled(t *testing.T) {
	h := kernelHouse(t)
	blobs, err := tars([]layertest.Layer{{layertest.File("d/file", strings.Repeat("x", 1<<20))}})
	if err != nil {
		t.Fatal(err)
	}
	x, err := h.extract(blobs[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = withDirs([]string{x.dir, t.TempDir()}, func(dirs []*os.File) error {
		_, err := archive.Replay(ctx, dirs[0], x.result.Needs, dirs[1], h.options)
		return err
	})
	if !errdefs.IsCanceled(err) && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
