// SPDX-License-Identifier: Apache-2.0

package storeview

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// View is a state of a store.
type View struct {
	// Root is the root: the directory with metadata.db in it.
	Root string
	// ImageStore is the store of images that the root is part of, or empty.
	ImageStore string
	// Snapshots, Layers and Holders are in the order of their numbers. Holders of
	// the same kind stand together: images, containers, views, extractions, chains.
	Snapshots []*Snapshot
	Layers    []*Layer
	Holders   []*Holder
	// Problems are contradictions in metadata.db, in a sentence each: fsck says more.
	Problems []string
	// Blobs says to which diffIDs blobs are known to unpack.
	Blobs map[digest.Digest]digest.Digest

	looker     *layerstore.Looker
	byNumber   map[uint64]*Snapshot
	layers     map[uint64]*Layer
	unreadable bool
}

// Snapshot is one that containerd, or a store of images, names.
type Snapshot struct {
	Number uint64
	// Name is what the store knows it by; Namespace and Key are the parts of it.
	Name, Namespace, Key string
	// Kind is "committed", "active" or "view".
	Kind string
	// Parent is nil without a parent. Children are in the order of their numbers.
	Parent   *Snapshot
	Children []*Snapshot
	// Layers are what it adds to its chain, top first: its layer, and what stands on
	// that for this chain. An active snapshot has one if it waits for Commit with it.
	Layers  []*Layer
	Labels  map[string]string
	Created time.Time
	// Holders are those whose chain it is in.
	Holders []*Holder
}

// Layer is a published directory.
type Layer struct {
	Number uint64
	// DiffID is empty where the layer belongs to one chain.
	DiffID digest.Digest
	// Size is on disk; that of an external layer counts for its additional store.
	Size, Inodes int64
	Empty        bool
	// Patch layers are directories only, with metadata that the chains below decide.
	Patch bool
	// External layers are in an additional store.
	External bool
	Created  time.Time
	// Snapshots refer to it. Holders have it in their chains.
	Snapshots []*Snapshot
	Holders   []*Holder
}

// Shared says whether more than one snapshot refers to the layer.
func (l *Layer) Shared() bool { return len(l.Snapshots) > 1 }

// Open reads the store at root: a root, or a store of images, with what names say. It
// stays open for measuring; what it says does not change.
//
// ErrNotFound: there is no store. ErrDataLoss: its metadata.db can't be read.
// ErrFailedPrecondition: a newer Strata wrote it. ErrUnavailable: it is written to
// without a pause.
func Open(ctx context.Context, root string, names Names) (_ *View, err error) {
	root, imageStore := Locate(root)
	looker, err := layerstore.Look(root)
	if err != nil {
		return nil, err
	}
	v := &View{Root: root, ImageStore: imageStore, looker: looker}
	contents, err := metadata.InspectCopy(ctx, looker.DatabasePath())
	if err != nil {
		return nil, errors.Join(err, looker.Close())
	}
	v.build(contents)
	v.hold(names)
	return v, nil
}

// Close closes the root.
func (v *View) Close() error { return v.looker.Close() }

// Snapshot returns the snapshot with number n, nil if there is none.
func (v *View) Snapshot(n uint64) *Snapshot { return v.byNumber[n] }

// Layer returns layer n, nil if there is none.
func (v *View) Layer(n uint64) *Layer { return v.layers[n] }

// Looker gives what measures and opens directories of the root.
func (v *View) Looker() *layerstore.Looker { return v.looker }

// build makes the snapshots and layers, and what leads from one to another.
func (v *View) build(c *metadata.Contents) {
	v.byNumber, v.layers, v.Blobs = map[uint64]*Snapshot{}, map[uint64]*Layer{}, c.Blobs
	for _, p := range c.Problems {
		v.Problems = append(v.Problems, p.Text)
	}
	v.unreadable = c.Incomplete
	for _, n := range slices.Sorted(maps.Keys(c.Layers)) {
		l := c.Layers[n]
		v.layers[n] = &Layer{
			Number: n, DiffID: l.DiffID, Size: l.Usage.Size, Inodes: l.Usage.Inodes, Empty: l.Empty, Created: l.Created,
			// The store charges nobody for what is not in it.
			External: l.Usage.Inodes == 0,
		}
		v.Layers = append(v.Layers, v.layers[n])
	}
	numbers := slices.Sorted(maps.Keys(c.Snapshots))
	for _, n := range numbers {
		sn := c.Snapshots[n]
		s := &Snapshot{Number: n, Name: sn.Name, Kind: kindName(sn.Kind), Labels: sn.Labels, Created: sn.Created}
		s.Namespace, s.Key = SplitName(sn.Name)
		v.byNumber[n] = s
		v.Snapshots = append(v.Snapshots, s)
	}
	for _, n := range numbers {
		v.link(v.byNumber[n], c.Snapshots[n])
	}
}

func (v *View) link(s *Snapshot, sn metadata.Snapshot) {
	if parent := v.byNumber[sn.ParentNumber]; parent != nil {
		s.Parent = parent
		parent.Children = append(parent.Children, s)
	}
	if patch := v.layers[sn.Patch]; patch != nil {
		patch.Patch = true
	}
	for _, n := range []uint64{sn.Patch, sn.Layer} {
		if l := v.layers[n]; l != nil {
			s.Layers = append(s.Layers, l)
			l.Snapshots = append(l.Snapshots, s)
		}
	}
}

// Locate tells a root from a store of images, which has its root in a directory of it.
func Locate(dir string) (root, imageStore string) {
	inside := filepath.Join(dir, rootName)
	if isDir(inside) && !exists(filepath.Join(dir, databaseName)) {
		return inside, dir
	}
	return dir, ""
}
