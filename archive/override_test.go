// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// plainHouse joins layers of an ordinary user, who mounts nothing.
type plainHouse struct{ house }

func newPlainHouse(t testing.TB) *plainHouse {
	t.Helper()
	h := &plainHouse{house{base: t.TempDir(), options: archive.Options{OverrideStat: true}}}
	var err error
	if h.empty, err = h.mkdir("empty"); err == nil {
		err = withDir(h.empty, func(dir *os.File) error {
			_, err := archive.Apply(context.Background(), source(make([]byte, 1024)), dir, h.options)
			return err
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// stacked runs do with the layers of a chain as options.
func (h *plainHouse) stacked(c chain, do func(archive.Options) error) error {
	return withDirs(overlayutil.Lowers(c), func(lowers []*os.File) error {
		options := h.options
		options.Lowers = lowers
		return do(options)
	})
}

func (h *plainHouse) join(below chain, x extracted) (chain, error) {
	if len(overlayutil.Lowers(below)) == 0 && x.result.Needs.Mounted == "" {
		return push(below, topOf(x)), nil
	}
	patch, err := h.mkdir("patch")
	if err != nil {
		return nil, err
	}
	var mounted string
	var answer digest.Digest
	err = h.stacked(below, func(options archive.Options) error {
		return withDirs([]string{x.dir, patch}, func(dirs []*os.File) (err error) {
			at := archive.Below{Layer: dirs[0], Patch: dirs[1]}
			mounted, answer, err = archive.Answer(context.Background(), x.result.Needs, at, options)
			return err
		})
	})
	switch {
	case err != nil:
		return nil, err
	case mounted != "":
		return h.onto(below, x.blob)
	case answer != "":
		return push(push(below, topOf(x)), overlayutil.Layer{Path: patch}), nil
	}
	return push(below, topOf(x)), nil
}

func topOf(x extracted) overlayutil.Layer {
	return overlayutil.Layer{Path: x.dir, Empty: x.result.Empty, OpaqueRoot: x.result.OpaqueRoot}
}

func (h *plainHouse) onto(below chain, blob []byte) (chain, error) {
	upper, err := h.mkdir("upper")
	if err != nil {
		return nil, err
	}
	err = h.stacked(below, func(options archive.Options) error {
		return withDir(upper, func(dir *os.File) error {
			_, err := archive.ApplyOnto(context.Background(), source(blob), dir, options)
			return err
		})
	})
	return push(below, overlayutil.Layer{Path: upper}), err
}

func (h *plainHouse) tree(c chain) (layertest.Tree, error) {
	return layertest.DumpOverride(append(overlayutil.Lowers(c), h.empty)...)
}

func (h *plainHouse) extractAll(blobs [][]byte) ([]extracted, error) {
	layers, err := h.house.extractAll(blobs)
	for _, x := range layers {
		if err == nil {
			err = checkCounts(x)
		}
	}
	return layers, err
}

// checkCounts holds what Apply counted against the disk.
func checkCounts(x extracted) error {
	if x.result.Inodes < 0 || x.result.Needs.Mounted != "" {
		return nil
	}
	inodes, _, err := layertest.Disk(x.dir)
	if err == nil && inodes != x.result.Inodes {
		err = blameless(x.dir, os.ErrInvalid)
	}
	return err
}

func (h *plainHouse) joinAll(layers []extracted) (c chain, err error) {
	for _, x := range layers {
		if c, err = h.join(c, x); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (h *plainHouse) parallel(blobs [][]byte) (chain, error) {
	layers, err := h.extractAll(blobs)
	if err != nil {
		return nil, err
	}
	return h.joinAll(layers)
}

// shared has every layer in other chains before: none may change by that.
func (h *plainHouse) shared(blobs [][]byte) (chain, error) {
	layers, err := h.extractAll(blobs)
	if err != nil {
		return nil, err
	}
	before, err := dumpAll(layers)
	if err != nil {
		return nil, err
	}
	var upsideDown chain
	for i := len(layers) - 1; i >= 0; i-- {
		upsideDown, _ = h.join(upsideDown, layers[i]) // it may well have to be refused
		_, _ = h.join(nil, layers[i])
	}
	c, err := h.joinAll(layers)
	if err != nil {
		return nil, err
	}
	after, err := dumpAll(layers)
	for i := range before {
		if diffs := before[i].Diff(after[i]); err == nil && len(diffs) > 0 {
			err = blameless(strings.Join(diffs, "\n"), os.ErrInvalid)
		}
	}
	return c, err
}

// allOnto extracts every layer onto those below.
func (h *plainHouse) allOnto(blobs [][]byte) (c chain, err error) {
	for i, blob := range blobs {
		if i == 0 {
			c, err = h.parallel([][]byte{blob})
		} else {
			c, err = h.onto(c, blob)
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

var plainOrders = []struct {
	name  string
	chain func(*plainHouse, [][]byte) (chain, error)
}{
	{"parallel", (*plainHouse).parallel},
	{"shared", (*plainHouse).shared},
	{"onto", (*plainHouse).allOnto},
}

// TestMergeOverrideStat extracts and joins all images as an ordinary user.
func TestMergeOverrideStat(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	for _, c := range readMergeCases(t) {
		c.dropOverlayXattrs()
		for _, order := range plainOrders {
			t.Run(c.ID+"/"+order.name, func(t *testing.T) { c.testPlain(t, order.name, order.chain) })
		}
	}
}

func (c *mergeCase) testPlain(t *testing.T, name string, order func(*plainHouse, [][]byte) (chain, error)) {
	t.Helper()
	h := newPlainHouse(t)
	blobs, err := tars(c.Layers)
	if err != nil {
		t.Fatal(err)
	}
	stack, err := order(h, blobs)
	if c.refused(t, err) {
		return
	}
	got, err := h.tree(stack)
	if err != nil {
		t.Fatal(err)
	}
	want := c.Expect.Tree
	if name == "onto" {
		want = c.naive(got)
	}
	c.compare(t, want.UnknownOwners(), got)
}
