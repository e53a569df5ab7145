// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// house joins layers to chains the way a store does it, and shows the chains.
// Its methods return errors only of the layers; what else goes wrong is in them
// too, but is no errdefs.ErrInvalidArgument.
type house struct {
	base    string
	empty   string
	options archive.Options
	mount   []string
	count   int
}

// extracted is a layer that was extracted alone.
type extracted struct {
	blob   []byte
	dir    string
	result archive.Result
}

// chain is the layers of a stack, top first.
type chain []overlayutil.Layer

// probe finds out once what the kernel can do.
var probe = sync.OnceValues(func() (facts overlayutil.Facts, err error) {
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		return facts, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return overlayutil.CheckRoot(dir)
})

func newHouse(t testing.TB, base string, options archive.Options) *house {
	t.Helper()
	facts, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	if options.Xattrs == "" {
		options.Xattrs = facts.XattrNamespace()
	}
	h := &house{base: base, options: options, mount: facts.MountOptions(nil)}
	if h.empty, err = h.mkdir("empty"); err != nil {
		t.Fatal(err)
	}
	return h
}

// kernelHouse is a house on the file system of the temporary directory.
func kernelHouse(t testing.TB) *house {
	t.Helper()
	testutil.RequireRoot(t)
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	return newHouse(t, base, archive.Options{})
}

func (h *house) mkdir(name string) (string, error) {
	h.count++
	dir := filepath.Join(h.base, fmt.Sprintf("%s%d", name, h.count))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	// The umask of whoever runs the tests must not show in the roots.
	return dir, os.Chmod(dir, 0o755)
}

// clear removes everything but the empty directory.
func (h *house) clear() error {
	entries, err := os.ReadDir(h.base)
	for _, e := range entries {
		if path := filepath.Join(h.base, e.Name()); path != h.empty {
			err = errors.Join(err, os.RemoveAll(path))
		}
	}
	return err
}

// extract extracts a layer alone.
func (h *house) extract(blob []byte) (x extracted, err error) {
	x.blob = blob
	if x.dir, err = h.mkdir("layer"); err != nil {
		return x, err
	}
	err = withDir(x.dir, func(dir *os.File) (err error) {
		x.result, err = applyIndexed(dir, blob, h.options)
		return err
	})
	return x, err
}

func source(blob []byte) archive.Source { return archive.FromReader(bytes.NewReader(blob)) }

func withDir(path string, do func(*os.File) error) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return do(f)
}

// join puts a layer on top of a chain: as it is, with a patch, or extracted again
// onto the layers below.
func (h *house) join(below chain, x extracted) (chain, error) {
	needs := x.result.Needs
	top := overlayutil.Layer{Path: x.dir, Empty: x.result.Empty, OpaqueRoot: x.result.OpaqueRoot}
	switch {
	case needs.None():
		return push(below, top), nil
	case needs.Mounted != "":
		return h.onto(below, x.blob)
	}
	patch, mounted, err := h.answer(below, x)
	switch {
	case err != nil:
		return nil, err
	case mounted != "" && x.blob == nil:
		return h.replay(below, x)
	case mounted != "":
		return h.onto(below, x.blob)
	case patch == "":
		return push(below, top), nil
	}
	return push(push(below, top), overlayutil.Layer{Path: patch}), nil
}

func push(below chain, top overlayutil.Layer) chain {
	return append(chain{top}, below...)
}

// answer returns the patch's directory, or none if there is nothing in it.
func (h *house) answer(below chain, x extracted) (patch, mounted string, err error) {
	if patch, err = h.mkdir("patch"); err != nil {
		return "", "", err
	}
	var answer digest.Digest
	err = h.view(below, func(root string) error {
		return withDirs([]string{root, x.dir, patch}, func(dirs []*os.File) error {
			at := archive.Below{Merged: dirs[0], Layer: dirs[1], Patch: dirs[2]}
			mounted, answer, err = archive.Answer(context.Background(), x.result.Needs, at, h.options)
			return err
		})
	})
	if err != nil || mounted != "" {
		return "", mounted, err
	}
	entries, err := os.ReadDir(patch)
	if (answer != "") != (len(entries) > 0) {
		return "", "", fmt.Errorf("the answer is %q, and has %d entries", answer, len(entries))
	}
	if answer == "" {
		patch = ""
	}
	return patch, "", err
}

// withDirs opens directories while do runs.
func withDirs(paths []string, do func([]*os.File) error) error {
	var open func(rest []string, files []*os.File) error
	open = func(rest []string, files []*os.File) error {
		if len(rest) == 0 {
			return do(files)
		}
		return withDir(rest[0], func(f *os.File) error { return open(rest[1:], append(files, f)) })
	}
	return open(paths, nil)
}

// onto extracts a layer onto a mount of the layers below.
func (h *house) onto(below chain, blob []byte) (chain, error) {
	return h.write(below, func(root string) error {
		_, err := h.plain(root, blob)
		return err
	})
}

// write makes a layer of what do does to a mount of the layers below.
func (h *house) write(below chain, do func(root string) error) (chain, error) {
	upper, err := h.mkdir("upper")
	if err != nil {
		return nil, err
	}
	work, err := h.mkdir("work")
	if err != nil {
		return nil, err
	}
	plan := h.plan(below)
	plan.Upper, plan.Work, plan.ForceOverlay = upper, work, true
	err = h.mounted(plan, do)
	return push(below, overlayutil.Layer{Path: upper}), err
}

// plain extracts a layer onto any directory.
func (h *house) plain(root string, blob []byte) (result archive.Result, err error) {
	err = withDir(root, func(dir *os.File) error {
		result, err = archive.ApplyOnto(context.Background(), source(blob), dir, h.options)
		return err
	})
	return result, err
}

func (h *house) plan(c chain) overlayutil.Plan {
	return overlayutil.Plan{Lowers: overlayutil.Lowers(c), Empty: h.empty, Options: h.mount}
}

// view shows a chain while do runs.
func (h *house) view(c chain, do func(root string) error) error {
	return h.mounted(h.plan(c), do)
}

// blameless is an error without its class: it is not the layer's fault.
func blameless(what string, err error) error {
	return errors.New(what + ": " + err.Error())
}

func (h *house) mounted(plan overlayutil.Plan, do func(root string) error) (err error) {
	mounts, err := plan.Mounts()
	if err != nil {
		return blameless("plan", err)
	}
	target, err := h.mkdir("view")
	if err != nil {
		return err
	}
	if err := mount.All(mounts, target); err != nil {
		return blameless(fmt.Sprintf("mount %+v", mounts), err)
	}
	defer func() { err = errors.Join(err, mount.UnmountAll(target, 0)) }()
	return do(target)
}

// tree is what a chain shows.
func (h *house) tree(c chain) (tree layertest.Tree, err error) {
	err = h.view(c, func(root string) error {
		tree, err = layertest.Dump(root)
		return err
	})
	return tree, err
}

// sequential extracts and joins each layer before the next. Every layer has a
// directory of its own, also one that comes twice.
func (h *house) sequential(blobs [][]byte) (chain, error) {
	var c chain
	for _, blob := range blobs {
		x, err := h.extract(blob)
		if err != nil {
			return nil, err
		}
		if c, err = h.join(c, x); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// extractAll extracts layers alone, each different one once.
func (h *house) extractAll(blobs [][]byte) ([]extracted, error) {
	seen := map[string]extracted{}
	var all []extracted
	for _, blob := range blobs {
		x, ok := seen[string(blob)]
		if !ok {
			var err error
			if x, err = h.extract(blob); err != nil {
				return nil, err
			}
			seen[string(blob)] = x
		}
		all = append(all, x)
	}
	return all, nil
}

func (h *house) joinAll(layers []extracted) (c chain, err error) {
	for _, x := range layers {
		if c, err = h.join(c, x); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// parallel extracts all layers, and then joins them bottom up.
func (h *house) parallel(blobs [][]byte) (chain, error) {
	layers, err := h.extractAll(blobs)
	if err != nil {
		return nil, err
	}
	return h.joinAll(layers)
}

// shared is parallel with directories that were in other chains before: each
// alone, and all of them the other way round. None may have changed by that.
func (h *house) shared(blobs [][]byte) (chain, error) {
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
		// Such an image may well have to be refused: the next layer starts anew.
		upsideDown, _ = h.join(upsideDown, layers[i])
		if _, err := h.join(nil, layers[i]); err == nil && upsideDown != nil {
			if _, err := h.tree(upsideDown); err != nil {
				return nil, blameless("the other chain", err)
			}
		}
	}
	c, err := h.joinAll(layers)
	if err != nil {
		return nil, err
	}
	after, err := dumpAll(layers)
	if err != nil {
		return nil, err
	}
	for i := range before {
		if diffs := before[i].Diff(after[i]); len(diffs) > 0 {
			return nil, fmt.Errorf("layer %d was written to by joining: %v", i, diffs)
		}
	}
	return c, nil
}

// dumpAll dumps the layers' own directories, whiteouts and marks included.
func dumpAll(layers []extracted) (trees []layertest.Tree, err error) {
	for _, x := range layers {
		tree, err := layertest.Dump(x.dir)
		if err != nil {
			return nil, err
		}
		trees = append(trees, tree)
	}
	return trees, nil
}

// allOnto extracts every layer onto a mount of those below.
func (h *house) allOnto(blobs [][]byte) (c chain, err error) {
	for _, blob := range blobs {
		if c, err = h.onto(c, blob); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func tars(layers []layertest.Layer) ([][]byte, error) {
	blobs := make([][]byte, 0, len(layers))
	for i, layer := range layers {
		blob, err := layer.Tar()
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		blobs = append(blobs, blob)
	}
	return blobs, nil
}
