// SPDX-License-Identifier: Apache-2.0

// Package teststore makes little stores, the same each time, for tests of what looks
// into them.
package teststore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// DiffIDs of the layers, from the bottom.
var (
	Base   = digest.FromString("base")
	Common = digest.FromString("common")
	App    = digest.FromString("app")
	Other  = digest.FromString("other")
	Old    = digest.FromString("old")
)

// The chains that images stand on.
var (
	AppChain   = identity.ChainID([]digest.Digest{Base, Common, App})
	OtherChain = identity.ChainID([]digest.Digest{Other, Common})
	OldChain   = identity.ChainID([]digest.Digest{Base, Old})
)

// Store is a sound store of images that nobody has open:
//
//	1 base ── 2 common ── 3 app ─┬─ 7 container "web", active, with a file
//	       │                     └─ 8 view "look"
//	       └─ 6 old
//	4 other ── 5 common, on the layer of 2
//	9 active, being extracted
//	10 a layer directory that nothing names
//
// Layer 6 has no index.
//
// Images "example.test/app:1" and "example.test/app:latest" are 3,
// "example.test/other:1" is 5, and 6 is nobody's.
type Store struct {
	// Dir is the store of images, Root the root in it.
	Dir, Root string
}

// New makes one on a tmpfs, where sizes are the same on every machine. At the end of the
// test nothing may be mounted there.
func New(t testing.TB) *Store {
	t.Helper()
	testutil.RequireRoot(t)
	dir := filepath.Join(testutil.Tmpfs(t), "images")
	s := &Store{Dir: dir, Root: filepath.Join(dir, "store")}
	testutil.CheckNoMounts(t, dir)
	b := &builder{t: t, root: s.Root}
	store, err := layerstore.Open(layerstore.Config{Root: s.Root})
	b.must(err)
	meta, err := metadata.Open(store.DatabasePath())
	b.must(err)
	b.store, b.meta = store, meta
	b.build()
	b.must(meta.Close(), store.Close())
	makeImages(t, dir)
	return s
}

type builder struct {
	t     testing.TB
	root  string
	store *layerstore.Store
	meta  *metadata.Store
	names int
}

func (b *builder) must(errs ...error) {
	b.t.Helper()
	if err := errors.Join(errs...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) build() {
	base := b.layer(Base, "", 64<<10)
	b.layer(Common, base, 256<<10)
	app := b.layer(App, identity.ChainID([]digest.Digest{Base, Common}).String(), 16<<10)
	other := b.layer(Other, "", 32<<10)
	b.share(Common, other)
	b.layer(Old, base, 8<<10)
	web := b.reserve()
	b.active(web, "web", app, nil)
	b.write(web, 12<<10)
	b.create(b.reserve(), snapshots.KindView, "look", app, nil)
	b.active(b.reserve(), "extract-1", "", map[string]string{snapshots.LabelSnapshotRef: "ref"})
	b.must(os.MkdirAll(filepath.Join(b.root, "layers", strconv.FormatUint(b.reserve(), 10), "fs"), 0o700))
}

// name makes of a key what containerd's metadata makes of it.
func (b *builder) name(key string) string {
	b.names++
	return "default/" + strconv.Itoa(b.names) + "/" + key
}

// find gives the name of a committed snapshot.
func (b *builder) find(key string) (name string) {
	if key == "" {
		return ""
	}
	c, err := metadata.InspectCopy(context.Background(), b.store.DatabasePath())
	b.must(err)
	for _, sn := range c.Snapshots {
		if filepath.Base(sn.Name) == key {
			return sn.Name
		}
	}
	b.t.Fatalf("no snapshot %s", key)
	return ""
}

func (b *builder) reserve() uint64 {
	n, err := b.meta.Reserve(context.Background())
	b.must(err)
	return n
}

func (b *builder) create(n uint64, kind snapshots.Kind, key, parent string, labels map[string]string) string {
	name := b.name(key)
	parent = b.find(parent)
	b.must(b.meta.Update(context.Background(), func(tx *metadata.Tx) error {
		_, err := tx.Create(metadata.Create{Number: n, Kind: kind, Key: name, Parent: parent, Labels: labels})
		return err
	}))
	return name
}

func (b *builder) active(n uint64, key, parent string, labels map[string]string) string {
	b.must(b.store.MakeSnapshot(n, layerstore.DefaultAttrs()))
	return b.create(n, snapshots.KindActive, key, parent, labels)
}

func (b *builder) write(n uint64, size int) {
	b.must(os.WriteFile(filepath.Join(b.store.UpperPath(n), "data"), make([]byte, size), 0o644))
}

// chain is the key of a layer on a parent.
func chain(diffID digest.Digest, parent string) string {
	if parent == "" {
		return diffID.String()
	}
	return identity.ChainID([]digest.Digest{digest.Digest(parent), diffID}).String()
}

// layer commits a layer with one file, and gives the key of the snapshot.
func (b *builder) layer(diffID digest.Digest, parent string, size int) (key string) {
	n := b.reserve()
	active := b.active(n, "extract-"+diffID.Encoded()[:6], parent, nil)
	b.write(n, size)
	indexed := diffID != Old
	if indexed {
		b.must(b.store.BuildIndex(context.Background(), n))
	}
	content, err := b.store.Seal(context.Background(), n)
	b.must(err)
	content.DiffID, content.Indexed = diffID, indexed
	b.must(b.store.Publish(n, content))
	key = chain(diffID, parent)
	name := b.name(key)
	b.must(b.meta.Update(context.Background(), func(tx *metadata.Tx) error {
		usage := snapshots.Usage{Size: content.Bytes, Inodes: content.Inodes}
		_, err := tx.Commit(metadata.Commit{
			Key: active, Name: name, Usage: usage, Layer: metadata.Layer{Number: n, DiffID: diffID, Usage: usage},
			Blob: digest.FromString("blob of " + diffID.String()), DiffID: diffID,
		})
		return err
	}))
	b.must(b.store.DropWork(n))
	return key
}

// share makes a snapshot of a layer that is there. It keeps the key that it was asked for
// with, and containerd finds it by the label.
func (b *builder) share(diffID digest.Digest, parent string) {
	n, name := b.reserve(), b.name("extract-again")
	labels := map[string]string{snapshots.LabelSnapshotRef: chain(diffID, parent)}
	parent = b.find(parent)
	b.must(b.meta.Update(context.Background(), func(tx *metadata.Tx) error {
		l, err := tx.LayerByDiffID(diffID)
		if err != nil {
			return err
		}
		_, err = tx.Share(metadata.Share{Create: metadata.Create{Number: n, Key: name, Parent: parent, Labels: labels}, Layer: l})
		return err
	}))
}
