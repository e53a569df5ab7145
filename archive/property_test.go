// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// Random images are held against the reference applier of internal/layertest,
// which is itself held against containerd's. -rapid.checks=5000 runs more.

func TestRandomImages(t *testing.T) {
	testutil.RequireRoot(t)
	for _, order := range orders {
		t.Run(order.name, func(t *testing.T) {
			h := newHouse(t, testutil.Tmpfs(t), archive.Options{})
			rapid.Check(t, func(t *rapid.T) { checkImage(t, h, order.chain) })
		})
	}
}

func checkImage(t *rapid.T, h *house, order func(*house, [][]byte) (chain, error)) {
	image := layertest.Image().Draw(t, "image")
	blobs, err := tars(image)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.clear(); err != nil {
			t.Fatal(err)
		}
	}()
	truth, truthErr := layertest.Truth(image)
	if truth.Open {
		return
	}
	stack, err := order(h, blobs)
	if sameRefusal(t, truthErr, err) {
		return
	}
	got, err := h.tree(stack)
	if err != nil {
		t.Fatal(err)
	}
	if diffs := truth.Tree().Diff(got); len(diffs) > 0 {
		t.Fatalf("the wrong tree:\n%s", strings.Join(diffs, "\n"))
	}
}

// sameRefusal tells whether it is over: both refused the image.
func sameRefusal(t *rapid.T, truth, err error) bool {
	switch {
	case truth == nil && err != nil:
		t.Fatalf("refused: %v", err)
	case truth != nil && err == nil:
		t.Fatalf("not refused: %v", truth)
	case err != nil && !errdefs.IsInvalidArgument(err):
		t.Fatalf("refused without ErrInvalidArgument: %v", err)
	}
	return err != nil
}

// TestRandomImagesOnto extracts layers onto what is there: a mount of the layers
// below, and one plain directory.
func TestRandomImagesOnto(t *testing.T) {
	testutil.RequireRoot(t)
	h := newHouse(t, testutil.Tmpfs(t), archive.Options{})
	t.Run("mount", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) { checkOnto(t, h, h.ontoMounts) })
	})
	t.Run("directory", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) { checkOnto(t, h, h.ontoDirectory) })
	})
}

func (h *house) ontoMounts(blobs [][]byte) (layertest.Tree, error) {
	stack, err := h.allOnto(blobs)
	if err != nil {
		return nil, err
	}
	return h.tree(stack)
}

func (h *house) ontoDirectory(blobs [][]byte) (layertest.Tree, error) {
	root, err := h.mkdir("root")
	if err != nil {
		return nil, err
	}
	for _, blob := range blobs {
		if _, err := h.plain(root, blob); err != nil {
			return nil, err
		}
	}
	return layertest.Dump(root)
}

// checkOnto leaves out the images in which naive extraction differs on purpose.
func checkOnto(t *rapid.T, h *house, apply func([][]byte) (layertest.Tree, error)) {
	image := layertest.Image().Draw(t, "image")
	truth, truthErr := layertest.Truth(image)
	if len(truth.Notes) > 0 {
		return
	}
	blobs, err := tars(image)
	if err != nil {
		t.Fatal(err)
	}
	got, err := apply(blobs)
	if err := h.clear(); err != nil {
		t.Fatal(err)
	}
	if sameRefusal(t, truthErr, err) {
		return
	}
	if diffs := truth.Tree().Diff(got); len(diffs) > 0 {
		t.Fatalf("the wrong tree:\n%s", strings.Join(diffs, "\n"))
	}
}

// TestRandomUsage holds what extracting counted against what is there.
func TestRandomUsage(t *testing.T) {
	h := kernelHouse(t)
	counted := 0
	rapid.Check(t, func(t *rapid.T) {
		defer func() {
			if err := h.clear(); err != nil {
				t.Fatal(err)
			}
		}()
		for _, layer := range layertest.Image().Draw(t, "image") {
			blob, err := layer.Tar()
			if err != nil {
				t.Fatal(err)
			}
			x, err := h.extract(blob)
			if err != nil || x.result.Needs.Mounted != "" || x.result.Inodes < 0 {
				continue
			}
			counted++
			inodes, bytes, err := usage(x.dir)
			if err != nil {
				t.Fatal(err)
			}
			if x.result.Inodes != inodes || x.result.Bytes != bytes {
				t.Fatalf("counted %d inodes, %d bytes; there are %d, %d", x.result.Inodes, x.result.Bytes, inodes, bytes)
			}
		}
	})
	if counted == 0 {
		t.Error("no layer was counted")
	}
}

// usage is what a directory takes on disk, links counted once.
func usage(root string) (inodes, bytes int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err := errors.Join(err, unix.Lstat(path, &st)); err != nil {
			return err
		}
		if !seen[st.Ino] {
			seen[st.Ino] = true
			inodes, bytes = inodes+1, bytes+st.Blocks*512
		}
		return nil
	})
	return inodes, bytes, err
}
