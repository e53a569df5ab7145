// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

var ctx = context.Background()

var (
	sharedID = digest.FromString("shared")
	extID    = digest.FromString("external")
)

// fixture is a sound root with every kind of snapshot, which nobody has open.
type fixture struct {
	t     *testing.T
	root  string
	store string // an additional one
	// Numbers of snapshots: layers are those of the snapshots they were made of.
	base, top, again, patch, staged, work, view, ext, extLayer uint64
}

func (f *fixture) must(errs ...error) {
	f.t.Helper()
	if err := errors.Join(errs...); err != nil {
		f.t.Fatal(err)
	}
}

// at is a path below the root.
func (f *fixture) at(base string, n uint64, rest ...string) string {
	return filepath.Join(append([]string{f.root, base, strconv.FormatUint(n, 10)}, rest...)...)
}

type builder struct {
	*fixture
	store *layerstore.Store
	meta  *metadata.Store
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	testutil.RequireRoot(t)
	dir := testutil.Tmpfs(t)
	f := &fixture{t: t, root: filepath.Join(dir, "root"), store: filepath.Join(dir, "store")}
	testutil.CheckNoMounts(t, f.root)
	store, err := layerstore.Open(layerstore.Config{Root: f.root})
	f.must(err)
	meta, err := metadata.Open(store.DatabasePath())
	f.must(err)
	b := &builder{fixture: f, store: store, meta: meta}
	b.build()
	f.must(meta.Close(), store.Close())
	t.Cleanup(func() {
		for _, point := range testutil.MountsUnder(t, f.root) {
			f.must(unix.Unmount(point, unix.MNT_DETACH))
		}
	})
	return f
}

func (b *builder) build() {
	ref := map[string]string{snapshots.LabelSnapshotRef: "ref-of-base"}
	b.base = b.active("base-tmp", "")
	b.commit(b.base, "base-tmp", "base", layerstore.Content{DiffID: sharedID}, ref)
	b.top = b.active("top-tmp", "base")
	b.fill(b.store.UpperPath(b.top))
	b.commit(b.top, "top-tmp", "top", layerstore.Content{}, nil)
	b.again = b.share()
	b.staged = b.reserve()
	b.create(b.staged, snapshots.KindActive, "staged", "top")
	b.update(func(tx *metadata.Tx) error {
		l, err := tx.GetLayer(b.base)
		return errors.Join(err, tx.Adopt(b.staged, l))
	})
	b.work = b.active("work", "again")
	b.view = b.reserve()
	b.create(b.view, snapshots.KindView, "view", "top")
	b.external()
}

func (b *builder) reserve() uint64 {
	n, err := b.meta.Reserve(ctx)
	b.must(err)
	return n
}

func (b *builder) update(fn func(*metadata.Tx) error) {
	b.t.Helper()
	b.must(b.meta.Update(ctx, fn))
}

func (b *builder) create(n uint64, kind snapshots.Kind, key, parent string) {
	b.update(func(tx *metadata.Tx) error {
		_, err := tx.Create(metadata.Create{Number: n, Kind: kind, Key: key, Parent: parent})
		return err
	})
}

func (b *builder) active(key, parent string) uint64 {
	n := b.reserve()
	b.must(b.store.MakeSnapshot(n, layerstore.DefaultAttrs()))
	b.must(os.WriteFile(filepath.Join(b.store.UpperPath(n), key), []byte(key), 0o644))
	b.create(n, snapshots.KindActive, key, parent)
	return n
}

func (b *builder) commit(n uint64, key, name string, extra layerstore.Content, labels map[string]string) {
	content, err := b.store.Seal(ctx, n)
	b.must(err)
	b.must(b.store.BuildIndex(ctx, n))
	content.DiffID, content.Indexed = extra.DiffID, true
	b.must(b.store.Publish(n, content))
	l := record(n, content)
	b.update(func(tx *metadata.Tx) error {
		_, err := tx.Commit(metadata.Commit{Key: key, Name: name, Labels: labels, Usage: l.Usage, Layer: l})
		return err
	})
	b.must(b.store.DropWork(n))
}

func record(n uint64, c layerstore.Content) metadata.Layer {
	return metadata.Layer{Number: n, DiffID: c.DiffID, Empty: c.Empty, Usage: snapshots.Usage{Size: c.Bytes, Inodes: c.Inodes}}
}

// share makes a snapshot of the layer of base, with a patch.
func (b *builder) share() uint64 {
	n := b.reserve()
	b.patch = b.reserve()
	dir, err := b.store.StagePatch(b.patch)
	b.must(err)
	b.must(os.Mkdir(filepath.Join(b.root, "staging", strconv.FormatUint(b.patch, 10), "fs/d"), 0o755), dir.Close())
	content, err := b.store.PublishPatch(ctx, b.patch, digest.FromString("answer"))
	b.must(err)
	b.update(func(tx *metadata.Tx) error {
		l, err := tx.GetLayer(b.base)
		if err != nil {
			return err
		}
		_, err = tx.Share(metadata.Share{Create: metadata.Create{Number: n, Key: "again", Parent: "top"}, Layer: l, Patch: record(b.patch, content)})
		return errors.Join(err, tx.BindBlob(digest.FromString("blob"), sharedID))
	})
	return n
}

func (b *builder) external() {
	rel := "layers/x/fs"
	b.must(os.MkdirAll(filepath.Join(b.fixture.store, rel), 0o755))
	dir, err := os.Open(filepath.Join(b.fixture.store, rel))
	b.must(err)
	b.extLayer = b.reserve()
	content := layerstore.Content{Bytes: 4096, Inodes: 1, DiffID: extID}
	b.must(b.store.AddExternal(ctx, b.extLayer, layerstore.External{StorePath: b.fixture.store, Path: rel, DiffID: extID, Dir: dir, Content: content}))
	b.must(dir.Close())
	b.ext = b.reserve()
	b.update(func(tx *metadata.Tx) error {
		l := record(b.extLayer, content)
		l.Usage = snapshots.Usage{}
		l, err := tx.AddLayer(l)
		if err != nil {
			return err
		}
		_, err = tx.Share(metadata.Share{Create: metadata.Create{Number: b.ext, Key: "ext"}, Layer: l})
		return err
	})
}

// raw changes metadata.db without any rules.
func (f *fixture) raw(fn func(tx *bolt.Tx) error) {
	f.t.Helper()
	db, err := bolt.Open(filepath.Join(f.root, "metadata.db"), 0o600, nil)
	f.must(err)
	f.must(db.Update(fn), db.Close())
}

func (f *fixture) contents() *metadata.Contents {
	f.t.Helper()
	c, err := metadata.Inspect(filepath.Join(f.root, "metadata.db"))
	f.must(err)
	return c
}

// snapshot changes a record, and leaves the indexes as they are.
func (f *fixture) snapshot(n uint64, change func(*metadata.Snapshot)) {
	f.t.Helper()
	sn := f.contents().Snapshots[n]
	change(&sn)
	f.fix(metadata.UsageFix(sn, sn.Usage))
}

func (f *fixture) layer(n uint64, change func(*metadata.Layer)) {
	f.t.Helper()
	l := f.contents().Layers[n]
	change(&l)
	f.fix(metadata.LayerFixes(l)...)
}

func (f *fixture) fix(fixes ...metadata.Fix) {
	f.t.Helper()
	f.must(metadata.ApplyFixes(filepath.Join(f.root, "metadata.db"), fixes))
}

// key is the key of a snapshot or layer in metadata.db. They are in the order of their
// numbers.
func key(tx *bolt.Tx, bucket string, i int) []byte {
	c := tx.Bucket([]byte(bucket)).Cursor()
	k, _ := c.First()
	for range i {
		k, _ = c.Next()
	}
	return append([]byte{}, k...)
}
