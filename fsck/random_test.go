// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/snapshotter"
)

// blobs are uncompressed layers, so that digest and diffID are the same.
func blobs(t *testing.T) [][]byte {
	t.Helper()
	var all [][]byte
	for _, names := range [][]string{{"a/", "a/b"}, {"a/c/d"}, {"x"}} { // the second needs to know what a is
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range names {
			h := tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeReg}
			if name[len(name)-1] == '/' {
				h.Typeflag, h.Mode = tar.TypeDir, 0o700
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		all = append(all, b.Bytes())
	}
	return all
}

// client calls a snapshotter at random, as containerd could.
type client struct {
	rt        *rapid.T
	s         *snapshotter.Snapshotter
	blobs     [][]byte
	active    []string
	committed []string
	made      int
}

func (c *client) fail(err error, fine ...func(error) bool) bool {
	if err == nil {
		return false
	}
	if !slices.ContainsFunc(fine, func(is func(error) bool) bool { return is(err) }) {
		c.rt.Fatal(err)
	}
	return true
}

func (c *client) name() string {
	c.made++
	return fmt.Sprintf("k8s.io/%d/name", c.made)
}

func (c *client) parent() string {
	choice := append(slices.Clone(c.committed), "")
	slices.Reverse(choice[:len(choice)-1]) // the first is drawn most often: chains get long
	return rapid.SampledFrom(choice).Draw(c.rt, "parent")
}

func (c *client) prepare() {
	key := c.name()
	mounts, err := c.s.Prepare(context.Background(), key, c.parent())
	if c.fail(err) {
		return
	}
	c.active = append(c.active, key)
	for _, o := range mounts[0].Options {
		if dir, ok := bytes.CutPrefix([]byte(o), []byte("upperdir=")); ok {
			c.fail(os.WriteFile(filepath.Join(string(dir), "file"), []byte(key), 0o644))
		}
	}
}

func (c *client) view() {
	key := c.name()
	if _, err := c.s.View(context.Background(), key, c.parent()); !c.fail(err) {
		c.active = append(c.active, key)
	}
}

// unpack prepares the extraction of a layer and does it, if the layer is not there.
func (c *client) unpack() {
	blob := rapid.SampledFrom(c.blobs).Draw(c.rt, "blob")
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	key, parent := c.name(), c.parent()
	labels := map[string]string{
		snapshots.LabelSnapshotRef:    digest.FromString(key).String(),
		snapshots.LabelSnapshotDiffID: desc.Digest.String(),
	}
	if rapid.Bool().Draw(c.rt, "late") {
		parent, labels["containerd.io/snapshot/parent-chain-id"] = "", digest.FromString("parent").String()
	}
	mounts, err := c.s.Prepare(context.Background(), key, parent, snapshots.WithLabels(labels))
	if errdefs.IsAlreadyExists(err) {
		c.committed = append(c.committed, key)
		c.rename(key)
		return
	}
	if c.fail(err) {
		return
	}
	c.active = append(c.active, key)
	if !slices.Contains(mounts[0].Options, "ro") && rapid.IntRange(0, 4).Draw(c.rt, "stop") != 0 {
		c.fail(c.extract(mounts, desc, blob), errdefs.IsNotFound, errdefs.IsFailedPrecondition)
	}
}

// rename finds the name of a snapshot that was committed as it was prepared.
func (c *client) rename(key string) {
	ref := digest.FromString(key).String()
	err := c.s.Walk(context.Background(), func(_ context.Context, info snapshots.Info) error {
		c.committed[len(c.committed)-1] = info.Name
		return nil
	}, `labels."containerd.io/snapshot.ref"==`+ref)
	c.fail(err)
}

func (c *client) extract(mounts []mount.Mount, desc ocispec.Descriptor, blob []byte) error {
	stage, err := c.s.Stage(context.Background(), mounts, desc)
	if err != nil {
		return err
	}
	if _, adopted, err := stage.Adopt(context.Background()); adopted || err != nil {
		return errors.Join(err, stage.Release())
	}
	result, err := archive.Apply(context.Background(), archive.FromReader(bytes.NewReader(blob)), stage.Dir(), stage.Options())
	if err == nil {
		err = stage.Seal(context.Background(), desc, result)
	}
	return errors.Join(err, stage.Release())
}

func (c *client) commit() {
	if len(c.active) == 0 {
		return
	}
	i := rapid.IntRange(0, len(c.active)-1).Draw(c.rt, "active")
	name := c.name()
	opts := []snapshots.Opt{}
	if parent := c.parent(); parent != "" && rapid.Bool().Draw(c.rt, "rebase") {
		opts = append(opts, snapshots.WithParent(parent))
	}
	err := c.s.Commit(context.Background(), name, c.active[i], opts...)
	if !c.fail(err, errdefs.IsInvalidArgument, errdefs.IsFailedPrecondition) {
		c.active = slices.Delete(c.active, i, i+1)
		c.committed = append(c.committed, name)
	}
}

func (c *client) remove() {
	from := &c.active
	if rapid.Bool().Draw(c.rt, "committed") {
		from = &c.committed
	}
	if len(*from) == 0 {
		return
	}
	i := rapid.IntRange(0, len(*from)-1).Draw(c.rt, "victim")
	if err := c.s.Remove(context.Background(), (*from)[i]); !c.fail(err, errdefs.IsFailedPrecondition) {
		*from = slices.Delete(*from, i, i+1)
	}
}

func TestRandomCallsLeaveNothing(t *testing.T) {
	testutil.RequireRoot(t)
	dir, made := testutil.Tmpfs(t), 0
	rapid.Check(t, func(rt *rapid.T) {
		made++
		root := filepath.Join(dir, fmt.Sprint(made))
		s, err := snapshotter.New(context.Background(), snapshotter.Config{Root: root, Durability: snapshotter.DurabilityNone, Staging: func(context.Context) bool { return true }})
		if err != nil {
			rt.Fatal(err)
		}
		c := &client{rt: rt, s: s, blobs: blobs(t)}
		calls := map[string]func(){"prepare": c.prepare, "view": c.view, "unpack": c.unpack, "commit": c.commit, "remove": c.remove}
		for range rapid.IntRange(1, 40).Draw(rt, "calls") {
			calls[rapid.SampledFrom([]string{"prepare", "view", "unpack", "unpack", "commit", "commit", "remove"}).Draw(rt, "call")]()
		}
		if err := errors.Join(s.Cleanup(context.Background()), s.Close()); err != nil {
			rt.Fatal(err)
		}
		r, err := fsck.Check(context.Background(), fsck.Options{Root: root, Usage: true, Data: true})
		if err != nil {
			rt.Fatal(err)
		}
		r.Findings = slices.DeleteFunc(r.Findings, func(f fsck.Finding) bool {
			return f.Code == fsck.CodeIndexAbsent && f.Subject.DiffID == "" // committed by a client
		})
		if len(r.Findings) > 0 {
			rt.Fatalf("%+v", r)
		}
	})
}

// A crash leaves what the next start, or a repair, sees to.
func TestRepairedRootOpens(t *testing.T) {
	f := newFixture(t)
	f.write("staging/77/fs/x", "x")
	f.must(os.Rename(f.at("snapshots", f.work), f.at("layers", f.work)))
	r, err := fsck.Repair(ctx, fsck.Options{Root: f.root}, yes)
	f.must(err)
	wantCodes(t, "repair", r, nil)
	s, err := snapshotter.New(ctx, snapshotter.Config{Root: f.root})
	f.must(err)
	if _, err := s.Mounts(ctx, "work"); err != nil {
		t.Error(err)
	}
	f.must(s.Close())
	store, err := layerstore.Open(layerstore.Config{Root: f.root})
	f.must(err)
	f.must(store.CheckSnapshot(f.work), store.Close())
}
