// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

var ctx = context.Background()

// ref is the image that tests mount.
const ref = "example.test/sample:1"

// programs are those that can mount.
var programs = []string{config.MountProgramKernel, config.MountProgramFuse}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fixture is a store with an image, and a directory to mount in.
type fixture struct {
	t testing.TB
	*Manager
	dir string
}

// newFixture opens a store that is checked at the end, when nothing may be mounted.
func newFixture(t testing.TB, program string) *fixture {
	t.Helper()
	testutil.RequireRoot(t)
	if program == config.MountProgramFuse {
		testutil.RequireTool(t, "fuse-overlayfs", "mount.fuse3")
	}
	base := testutil.Tmpfs(t)
	options := config.Default().Snapshotter
	options.MountProgram = program
	root := filepath.Join(base, "store")
	s, err := imagestore.Open(ctx, imagestore.Options{Root: root, Snapshotter: &options})
	must(t, err)
	f := &fixture{t: t, Manager: New(s), dir: filepath.Join(base, "mounts")}
	must(t, os.Mkdir(f.dir, 0o755))
	t.Cleanup(func() {
		list, err := f.List(ctx)
		must(t, err)
		for _, s := range list {
			must(t, f.Remove(ctx, s.Name, Unmounting))
		}
		must(t, s.Close())
		report, err := fsck.Check(ctx, fsck.Options{Root: s.StorePath()})
		must(t, err)
		for _, finding := range report.Findings {
			t.Errorf("fsck: %+v", finding)
		}
		for _, left := range testutil.MountsUnder(t, f.dir) {
			t.Errorf("left mounted: %s", left)
		}
	})
	return f
}

func (f *fixture) load(name string, layers ...testimage.Layer) {
	f.t.Helper()
	image, err := testimage.Build([]string{"/bin/sh"}, layers...)
	must(f.t, err)
	f.loadImage(name, image)
}

func (f *fixture) loadImage(name string, image v1.Image) {
	f.t.Helper()
	archive := filepath.Join(f.t.TempDir(), "image.tar")
	must(f.t, testimage.WriteArchive(archive, name, image))
	_, err := f.store.Load(ctx, imagestore.LoadOptions{Path: archive})
	must(f.t, err)
}

// sample loads the image that tests mount.
func (f *fixture) sample() {
	f.t.Helper()
	f.load(ref,
		testimage.Layer{
			testimage.Dir("etc"), testimage.File("etc/config", "old\n"), testimage.File("etc/owned", "x").Owner(7, 8).Mode(0o640),
			testimage.Dir("data"), testimage.File("data/a", "a"), testimage.File("data/b", "b"), testimage.Dir("data/sub"),
			testimage.File("data/sub/deep", "deep"), testimage.Symlink("link", "etc/config"),
		},
		testimage.Layer{testimage.Dir("data"), testimage.Whiteout("data/b"), testimage.File("data/c", "c")},
	)
}

// at makes an empty directory.
func (f *fixture) at(name string) string {
	f.t.Helper()
	dir := filepath.Join(f.dir, name)
	must(f.t, os.Mkdir(dir, 0o755))
	return dir
}

// mount mounts at a new directory of that name.
func (f *fixture) mount(dir string, r Request) string {
	f.t.Helper()
	r.Dir = f.at(dir)
	if r.Ref == "" {
		r.Ref = ref
	}
	s, err := f.Mount(ctx, r)
	must(f.t, err)
	if s.State != Mounted || s.Dir != r.Dir {
		f.t.Errorf("mounted: %+v", s)
	}
	return r.Dir
}

func (f *fixture) tree(dir string) layertest.Tree {
	f.t.Helper()
	tree, err := layertest.Dump(dir)
	must(f.t, err)
	return tree
}

func (f *fixture) commit(target, name string) imagestore.Image {
	f.t.Helper()
	image, err := f.Commit(ctx, target, name, Note{Author: "me", Message: "changed", Time: time.Unix(1_700_000_000, 0)})
	must(f.t, err)
	return image
}
