// SPDX-License-Identifier: Apache-2.0

package storeview

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/layerstore"
)

// Names of the layout, see docs/design.md.
const (
	rootName      = "store"
	databaseName  = "metadata.db"
	contentName   = "content"
	imagesName    = "images.db"
	layersName    = "layers"
	snapshotsName = "snapshots"
	stagingName   = "staging"
	trashName     = "trash"
	tempName      = "tmpmounts"
	fsName        = "fs"
)

const (
	committed = "committed"
	active    = "active"
	view      = "view"
)

func kindName(k snapshots.Kind) string {
	switch k {
	case snapshots.KindActive:
		return active
	case snapshots.KindView:
		return view
	case snapshots.KindCommitted:
		return committed
	}
	return "unknown"
}

func isDir(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.IsDir()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func rel(base string, n uint64, rest ...string) string {
	path := base + "/" + strconv.FormatUint(n, 10)
	for _, part := range rest {
		path += "/" + part
	}
	return path
}

// Written measures what an active snapshot was changed to. Others have nothing. It takes
// time in proportion to the number of files.
func (v *View) Written(ctx context.Context, s *Snapshot) (layerstore.Space, error) {
	if s.Kind != active {
		return layerstore.Space{}, nil
	}
	return v.looker.Measure(ctx, rel(snapshotsName, s.Number, fsName), nil)
}

// MeasureLayer measures the directory of a layer. It takes time in proportion to the
// number of files. One in an additional store takes nothing here.
func (v *View) MeasureLayer(ctx context.Context, l *Layer) (layerstore.Space, error) {
	if l.External {
		return layerstore.Space{}, nil
	}
	return v.looker.Measure(ctx, rel(layersName, l.Number, fsName), nil)
}

// Part is what one kind of thing in a store takes on disk.
type Part struct {
	Name  string
	Count int
	layerstore.Space
}

// Names of the parts of a store.
const (
	PartLayers   = "layers"
	PartExternal = "external layers"
	PartWritten  = "written by containers"
	PartTrash    = "trash"
	PartStaging  = "staging"
	PartOrphans  = "orphans"
	PartRecords  = "records"
	PartContent  = "content"
	PartTotal    = "total"
)

// Parts are all that is in a store, so that their sum is what it takes on disk. Layers
// are counted as they were when they were made, or, with measured, one by one, which
// takes time in proportion to the number of files. The last part is the total.
//
// "records" are metadata.db and the like, and the directories that the rest is in.
// "orphans" are directories that metadata.db names nothing of: leftovers of crashes, or
// what is being made at this moment. "content" is what a store of images has beside its
// root.
func (v *View) Parts(ctx context.Context, measured func(*Layer) (layerstore.Space, error)) ([]Part, error) {
	if measured == nil {
		measured = func(l *Layer) (layerstore.Space, error) {
			return layerstore.Space{Bytes: l.Size, Inodes: l.Inodes}, nil
		}
	}
	p := &parts{view: v, ctx: ctx, found: map[string]*Part{}}
	for _, name := range []string{PartLayers, PartExternal, PartWritten, PartTrash, PartStaging, PartOrphans, PartRecords} {
		p.list = append(p.list, &Part{Name: name})
		p.found[name] = p.list[len(p.list)-1]
	}
	if v.ImageStore != "" {
		p.list = append(p.list, &Part{Name: PartContent})
		p.found[PartContent] = p.list[len(p.list)-1]
	}
	for _, l := range v.Layers {
		p.layer(l, measured)
	}
	p.numbered(layersName, func(n uint64) bool { return v.layers[n] != nil })
	p.numbered(snapshotsName, func(n uint64) bool { return v.byNumber[n] != nil })
	p.rest()
	return p.sum(), p.err
}

// parts adds up, until the first error.
type parts struct {
	view  *View
	ctx   context.Context //nolint:containedctx // lasts as long as one call
	list  []*Part
	found map[string]*Part
	err   error
}

func (p *parts) add(name string, space layerstore.Space, err error) {
	p.found[name].Add(space)
	if p.err == nil {
		p.err = err
	}
}

func (p *parts) measure(name, path string, skip func(string) bool) {
	if p.err != nil {
		return
	}
	space, err := p.view.looker.Measure(p.ctx, path, skip)
	p.add(name, space, err)
}

func (p *parts) layer(l *Layer, measured func(*Layer) (layerstore.Space, error)) {
	if p.err != nil {
		return
	}
	if l.External {
		p.found[PartExternal].Count++
		return
	}
	space, err := measured(l)
	p.add(PartLayers, space, err)
	p.found[PartLayers].Count++
}

// numbered counts the directories of layers or snapshots but for layers themselves.
func (p *parts) numbered(base string, named func(uint64) bool) {
	isFS := func(name string) bool { return name == fsName }
	numbers, err := p.view.looker.Numbers(base)
	p.add(PartRecords, layerstore.Space{}, err)
	for _, n := range numbers {
		switch {
		case !named(n):
			p.found[PartOrphans].Count++
			p.measure(PartOrphans, rel(base, n), nil)
			continue
		case base == snapshotsName:
			p.found[PartWritten].Count++
			p.measure(PartWritten, rel(base, n, fsName), nil)
		}
		p.measure(PartRecords, rel(base, n), isFS)
	}
	// The directory itself, and nothing in it.
	p.measure(PartRecords, base, func(string) bool { return true })
}

// rest counts what is left of the root, and beside it.
func (p *parts) rest() {
	counted := []string{layersName, snapshotsName, stagingName, trashName, tempName}
	for part, base := range map[string]string{PartTrash: trashName, PartStaging: stagingName} {
		p.measure(part, base, nil)
		names, err := p.view.looker.Entries(base)
		p.add(part, layerstore.Space{}, err)
		p.found[part].Count = len(names)
	}
	p.measure(PartRecords, tempName, func(string) bool { return true })
	p.measure(PartRecords, ".", func(base string) bool { return slices.Contains(counted, base) })
	if p.view.ImageStore == "" || p.err != nil {
		return
	}
	store, err := layerstore.LookAround(p.view.ImageStore)
	if err != nil {
		p.add(PartContent, layerstore.Space{}, err)
		return
	}
	space, err := store.Measure(p.ctx, ".", func(base string) bool { return base == rootName })
	p.add(PartContent, space, err)
	p.add(PartContent, layerstore.Space{}, store.Close())
}

func (p *parts) sum() []Part {
	total := Part{Name: PartTotal}
	list := make([]Part, 0, len(p.list)+1)
	for _, part := range p.list {
		total.Count += part.Count
		total.Add(part.Space)
		list = append(list, *part)
	}
	return append(list, total)
}

// Saved is what sharing saves, in bytes: each layer but for its first use.
func (v *View) Saved() (saved int64) {
	for _, l := range v.Layers {
		saved += int64(max(0, len(l.Snapshots)-1)) * l.Size
	}
	return saved
}

// Free is what the file system of the store has left for its user, in bytes and inodes.
// A file system that counts no inodes says 0.
func (v *View) Free() (layerstore.Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(v.Root, &st); err != nil {
		return layerstore.Space{}, fmt.Errorf("free space of %s: %w", v.Root, err)
	}
	return layerstore.Space{Bytes: int64(st.Bavail) * st.Bsize, Inodes: int64(st.Ffree)}, nil
}
