// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// openOverride opens the root of an ordinary user, and looks it over at the end.
func openOverride(t *testing.T, root string) *Snapshotter {
	t.Helper()
	s, err := New(ctx, Config{Root: root, Ownership: OwnershipOverrideStat, Durability: DurabilityNone, SyncRemove: true, UnpackAhead: 1})
	if err != nil {
		t.Fatal(err)
	}
	testutil.CheckNoMounts(t, root)
	t.Cleanup(func() {
		checkStore(t, s)
		if err := errors.Join(s.Cleanup(ctx), s.Close()); err != nil {
			t.Error(err)
		}
		report, err := fsck.Check(ctx, fsck.Options{Root: root})
		if err != nil || len(report.Findings) > 0 {
			t.Errorf("fsck: %v %+v", err, report.Findings)
		}
	})
	return s
}

// overrideCase is an image of the archive package's cases.
type overrideCase struct {
	ID     string
	Layers []layertest.Layer
	Expect struct {
		Tree  layertest.Tree
		Error bool
	}
}

func overrideCases(t *testing.T) []overrideCase {
	t.Helper()
	data, err := os.ReadFile("../archive/testdata/merge/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []overrideCase
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if c.ID == "wh-aufs" { // a leftover that no image means
			delete(c.Expect.Tree, "/.wh..wh.plnk")
			delete(c.Expect.Tree, "/.wh..wh.plnk/1.2")
		}
	}
	return cases
}

// library makes blobs of the layers of a case.
func (c *overrideCase) library(t *testing.T) library {
	t.Helper()
	l := library{layers: layers{}, counter: &atomic.Int64{}}
	for _, layer := range c.Layers {
		blob, err := layer.Tar()
		if err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(blob)
		l.layers[d] = blob
		l.descs = append(l.descs, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(blob))})
	}
	return l
}

// image is all layers of a library.
func (l library) image() []int {
	var image []int
	for i := range l.descs {
		image = append(image, i)
	}
	return image
}

// TestOverrideImages unpacks all images as an ordinary user, in every way in which a
// client can, into one root: layers are shared, or joined anew, as they come.
func TestOverrideImages(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	s := openOverride(t, filepath.Join(t.TempDir(), "root"))
	for _, c := range overrideCases(t) {
		for how := range ways {
			t.Run(fmt.Sprintf("%s/%d", c.ID, how), func(t *testing.T) { c.test(t, s, how, false) })
			t.Run(fmt.Sprintf("%s/%d ahead", c.ID, how), func(t *testing.T) { c.test(t, s, how, true) })
		}
	}
}

func (c *overrideCase) test(t *testing.T, s *Snapshotter, how way, ahead bool) {
	t.Helper()
	l := c.library(t)
	s.UseUnpacker(l)
	if ahead {
		l.unpackAhead(t, s, c.Expect.Error)
		defer func() { s.dropAhead(ctx, s.ahead.unwanted()) }()
	}
	made, err := l.pull(t, s, l.image(), how)
	if c.Expect.Error {
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("refused with %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.overrideTree(made[len(made)-1])
	if err != nil {
		t.Fatal(err)
	}
	want := c.Expect.Tree.UnknownOwners()
	for p, line := range want { // a mark of the store's own, there
		want[p] = strings.Replace(line, ` x{user.overlay.opaque="y"}`, "", 1)
	}
	if diffs := want.Diff(got); len(diffs) > 0 {
		t.Errorf("the wrong tree:\n%s", strings.Join(diffs, "\n"))
	}
	emptyOut(t, s) // also what was recorded ahead and not asked for
}

// overrideTree is what the layers of a committed snapshot show to who mounts them.
func (s *Snapshotter) overrideTree(name string) (layertest.Tree, error) {
	chain, err := s.Layers(ctx, name)
	if err != nil {
		return nil, err
	}
	return layertest.DumpOverride(s.Stack(chain)...)
}

// TestOverrideMounts: mounts are for fuse-overlayfs, also where the kernel would take a
// bind mount, and the root of a container's directory has an owner that it reads.
func TestOverrideMounts(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	root := filepath.Join(t.TempDir(), "root")
	s := openOverride(t, root)
	l := newLibrary(t)
	s.UseUnpacker(l)
	l.unpack(t, s, "one", "", false, l.descs[0])
	l.unpack(t, s, "two", "one", true, l.descs[2])
	for key, parent := range map[string]string{"none": "", "one-layer": "one", "more": "two"} {
		view, err := s.View(ctx, key+"-view", parent)
		if err != nil {
			t.Fatal(err)
		}
		active := prepare(t, s, key, parent)
		for _, m := range append(view, active...) {
			if m.Type != overlayutil.FuseOverlayfs || !slices.Contains(m.Options, readsOverrides) {
				t.Errorf("%s: %+v", key, m)
			}
		}
		if value := attr(t, upper(t, s, key), "user.containers.override_stat"); value != "0:0:0755:dir" {
			t.Errorf("%s: the root has the owner %q", key, value)
		}
		if value := attr(t, upper(t, s, key), "user.fuseoverlayfs.override_stat"); value != "0:0:40755" {
			t.Errorf("%s: the root has the owner %q for fuse-overlayfs", key, value)
		}
	}
	_, err := s.Prepare(ctx, "mapped", "two", labels(snapshots.LabelSnapshotUIDMapping, "0:1000:10", snapshots.LabelSnapshotGIDMapping, "0:1000:10"))
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("mapped ids: %v", err)
	}
}

func attr(t *testing.T, path, name string) string {
	t.Helper()
	value := make([]byte, 100)
	n, err := unix.Getxattr(path, name, value)
	if err != nil {
		t.Errorf("%s of %s: %v", name, path, err)
	}
	return string(value[:max(n, 0)])
}

// TestOverrideForEver: a root is opened as what it was made as.
func TestOverrideForEver(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	for _, made := range []Ownership{OwnershipReal, OwnershipOverrideStat} {
		cfg := Config{Root: filepath.Join(dir, string(made)), Ownership: made}
		for _, then := range []Ownership{made, OwnershipReal, OwnershipOverrideStat, made} {
			cfg.Ownership = then
			s, err := New(ctx, cfg)
			if then == made && err != nil {
				t.Fatal(err)
			}
			if then != made && (!errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), string(made))) {
				t.Errorf("made %s, opened %s: %v", made, then, err)
			}
			if err == nil {
				checkStore(t, s)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, cfg := range []Config{
		{Root: dir, Ownership: "other"},
		{Root: dir, Ownership: OwnershipOverrideStat, AdditionalStores: []string{"/x"}},
	} {
		if _, err := New(ctx, cfg); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
