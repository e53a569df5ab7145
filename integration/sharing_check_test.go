// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// storeCheck holds a store's metadata against its directories.
type storeCheck struct {
	root     string
	tx       *metadata.Tx
	active   map[uint64]bool     // active snapshots that are not staged
	staged   map[uint64]bool     // active snapshots that are
	refs     map[uint64][]uint64 // layer → snapshots that name it, oldest first
	patches  map[answered]uint64
	layers   []uint64
	problems []error
	charged  snapshots.Usage // sum over the snapshots
	held     snapshots.Usage // sum over the layers
}

// answered is an answer to a layer.
type answered struct {
	layer  uint64
	answer digest.Digest
}

// checkStore fails the test unless the store is whole. Nothing may be going on in it
// but what ends by itself.
func (n *node) checkStore() {
	n.t.Helper()
	eventually(n.t, "the store is whole", func() error { return checkStoreAt(n.t, n.root) })
}

// checkStoreAt looks at a copy of the metadata, so that the daemon can go on: every
// transaction leaves the last one's pages alone. Where the log is ahead, the copy is made
// of that when it is opened.
func checkStoreAt(t *testing.T, root string) (err error) {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "metadata.db")
	for from, to := range map[string]string{
		filepath.Join(root, "metadata.db"):                   copied,
		metadata.LogPath(filepath.Join(root, "metadata.db")): metadata.LogPath(copied),
	} {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		writeFile(t, to, string(data))
	}
	store, err := metadata.Open(copied)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var all []metadata.Snapshot
	err = store.Walk(context.Background(), func(_ context.Context, s metadata.Snapshot) error {
		all = append(all, s)
		return nil
	})
	if err != nil {
		return err
	}
	return store.View(func(tx *metadata.Tx) error {
		c := &storeCheck{root: root, tx: tx, active: map[uint64]bool{}, staged: map[uint64]bool{}, refs: map[uint64][]uint64{}, patches: map[answered]uint64{}}
		for _, s := range all {
			c.snapshot(s)
		}
		c.directories()
		for _, layer := range c.layers {
			c.layer(layer)
		}
		c.usage()
		return errors.Join(c.problems...)
	})
}

func (c *storeCheck) problem(format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf(format, args...))
}

func (c *storeCheck) exists(path ...string) bool {
	_, err := os.Lstat(filepath.Join(append([]string{c.root}, path...)...))
	return err == nil
}

func (c *storeCheck) snapshot(s metadata.Snapshot) {
	switch {
	case s.Kind == snapshots.KindActive && s.Layer == 0:
		c.active[s.Number] = true
		if number := strconv.FormatUint(s.Number, 10); !c.exists("snapshots", number, "fs") || !c.exists("snapshots", number, "work") {
			c.problem("active snapshot %q has no directories %d", s.Name, s.Number)
		}
	case s.Kind == snapshots.KindActive:
		c.staged[s.Number] = true
	case s.Kind == snapshots.KindCommitted && s.Layer == 0:
		c.problem("committed snapshot %q has no layer", s.Name)
	}
	for _, layer := range []uint64{s.Layer, s.Patch} {
		if layer != 0 {
			c.refs[layer] = append(c.refs[layer], s.Number)
		}
	}
	if s.Kind == snapshots.KindCommitted {
		if _, err := c.tx.Chain(s.Number); err != nil {
			c.problem("chain of %q: %w", s.Name, err)
		}
	}
	if s.Patch != 0 {
		m := c.manifest(s.Patch)
		if !m.Patch {
			c.problem("patch %d of %q is no patch", s.Patch, s.Name)
		}
		of := answered{s.Layer, m.Answer}
		if other := c.patches[of]; other != 0 && other != s.Patch {
			c.problem("layer %d has two patches with one answer, %d and %d", s.Layer, other, s.Patch)
		}
		c.patches[of] = s.Patch
	}
	usage, err := c.tx.Charged(s)
	if err != nil {
		c.problem("usage of %q: %w", s.Name, err)
	}
	c.charged.Add(usage)
}

// directories makes sure that each has somebody who refers to it.
func (c *storeCheck) directories() {
	for _, kind := range []string{"layers", "snapshots", "staging", "external", "empty"} {
		entries, err := os.ReadDir(filepath.Join(c.root, kind))
		if err != nil {
			c.problem("%w", err)
		}
		for _, e := range entries {
			number, err := strconv.ParseUint(e.Name(), 10, 64)
			switch {
			case err != nil, kind == "staging", kind == "empty":
				c.problem("%s/%s was left", kind, e.Name())
			case kind == "layers":
				c.layers = append(c.layers, number)
			case kind == "snapshots" && !c.active[number] && !c.staged[number]:
				c.problem("no active snapshot has directory %s/%d", kind, number)
			case kind == "external" && c.manifest(number).Format != layerstore.FormatExternal:
				c.problem("%s/%d is not of an external layer", kind, number)
			}
		}
	}
	for layer, snapshots := range c.refs {
		if !slices.Contains(c.layers, layer) {
			c.problem("snapshots %v refer to layer %d, which has no directory", snapshots, layer)
		}
	}
}

func (c *storeCheck) manifest(layer uint64) (m layerstore.Manifest) {
	data, err := os.ReadFile(filepath.Join(c.root, "layers", strconv.FormatUint(layer, 10), "layer.json"))
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err == nil && m.Number != layer {
		err = fmt.Errorf("it says %d", m.Number)
	}
	if err != nil {
		c.problem("layer.json of layer %d: %w", layer, err)
	}
	return m
}

func (c *storeCheck) layer(n uint64) {
	m := c.manifest(n)
	l, err := c.tx.GetLayer(n)
	if err != nil {
		c.problem("nothing refers to layers/%d: %w", n, err)
		return
	}
	refs, err := c.tx.References(n)
	if err != nil || !slices.Equal(refs, c.refs[n]) || len(refs) == 0 {
		c.problem("layer %d counts snapshots %v (%w), but %v name it", n, refs, err, c.refs[n])
	}
	if m.DiffID != l.DiffID || m.Empty != l.Empty || m.OpaqueRoot != l.OpaqueRoot {
		c.problem("layer %d is %+v, and its layer.json says %+v", n, l, m)
	}
	if l.DiffID != "" {
		if same, err := c.tx.LayerByDiffID(l.DiffID); err != nil || same.Number != n {
			c.problem("layer %d has diffID %s, by which %d is found: %w", n, l.DiffID, same.Number, err)
		}
	}
	if c.exists("layers", strconv.FormatUint(n, 10), "work") {
		c.problem("layer %d still has its workdir", n)
	}
	c.held.Add(l.Usage)
	if m.Format == layerstore.FormatExternal {
		c.external(n, l)
		return
	}
	if m.Bytes != l.Usage.Size || m.Inodes != l.Usage.Inodes {
		c.problem("layer %d is said to take %+v, and in layer.json %d bytes, %d inodes", n, l.Usage, m.Bytes, m.Inodes)
	}
	c.index(l)
}

func (c *storeCheck) external(n uint64, l metadata.Layer) {
	number := strconv.FormatUint(n, 10)
	if l.Usage.Size != 0 {
		c.problem("external layer %d is charged for: %+v", n, l.Usage)
	}
	if !c.exists("external", number) {
		c.problem("there is no note of external layer %d", n)
	}
	mounted, err := mountinfo.Mounted(filepath.Join(c.root, "layers", number, "fs"))
	if !mounted {
		c.problem("external layer %d is not mounted (%w)", n, err)
	}
}

func (c *storeCheck) usage() {
	if c.charged != c.held {
		c.problem("the snapshots are charged %+v, the layers take %+v", c.charged, c.held)
	}
}

// layerJSONs reads what is said of the published layers.
func (n *node) layerJSONs() (all []layerstore.Manifest) {
	n.t.Helper()
	for _, number := range n.layerDirs() {
		data, err := os.ReadFile(filepath.Join(n.root, "layers", strconv.Itoa(number), "layer.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed this moment
		}
		var m layerstore.Manifest
		if err := errors.Join(err, json.Unmarshal(data, &m)); err != nil {
			n.t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}
