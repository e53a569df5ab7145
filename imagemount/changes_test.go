// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/internal/layertest"
)

// change is some work in a writable mount of the sample.
func change(t *testing.T, dir string) {
	t.Helper()
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "etc/config"), []byte("new\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "etc/added"), nil, 0o600),
		os.Remove(filepath.Join(dir, "data/a")),
		os.RemoveAll(filepath.Join(dir, "data/sub")), os.Mkdir(filepath.Join(dir, "data/sub"), 0o700),
		os.WriteFile(filepath.Join(dir, "data/sub/other"), nil, 0o600),
		os.Remove(filepath.Join(dir, "link")), os.Mkdir(filepath.Join(dir, "link"), 0o755),
		os.Chown(filepath.Join(dir, "etc/owned"), 70, 80),
	} {
		must(t, err)
	}
}

var changed = []Change{
	{Changed, "/data"}, {Deleted, "/data/a"}, {Changed, "/data/sub"}, {Deleted, "/data/sub/deep"}, {Added, "/data/sub/other"},
	{Changed, "/etc"}, {Added, "/etc/added"}, {Changed, "/etc/config"}, {Changed, "/etc/owned"}, {Changed, "/link"},
}

func TestChanges(t *testing.T) {
	for _, program := range programs {
		t.Run(program, func(t *testing.T) {
			f := newFixture(t, program)
			f.sample()
			dir := f.mount("m", Request{Access: ReadWrite, Name: "work"})
			if changes, err := f.Changes(ctx, "work"); err != nil || len(changes) != 0 {
				t.Errorf("before any: %v, %v", changes, err)
			}
			change(t, dir)
			for _, target := range []string{dir, "work"} {
				got, err := f.Changes(ctx, target)
				must(t, err)
				if !slices.Equal(got, changed) {
					t.Errorf("changes of %s: %v\nwant %v", target, got, changed)
				}
			}
			must(t, f.Unmount(ctx, dir))
			if got, err := f.Changes(ctx, "work"); err != nil || !slices.Equal(got, changed) {
				t.Errorf("unmounted: %v, %v", got, err)
			}
		})
	}
}

func TestChangesRefused(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	dir := f.mount("m", Request{})
	if _, err := f.Changes(ctx, dir); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("of a read-only mount: %v", err)
	}
	if _, err := f.Changes(ctx, "nosuch"); !errdefs.IsNotFound(err) {
		t.Errorf("of nothing: %v", err)
	}
	f.mount("w", Request{Access: ReadWrite, Name: "work"})
	full := errors.New("the disk is full")
	err := f.Tar(ctx, "work", func() (io.Writer, error) { return nil, full })
	if !errors.Is(err, full) {
		t.Errorf("an error of the writer: %v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := f.Changes(done, "work"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// The tar is a layer of exactly the changes.
func TestTar(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	dir := f.mount("m", Request{Access: ReadWrite, Name: "work"})
	change(t, dir)
	var buf bytes.Buffer
	must(t, f.Tar(ctx, "work", func() (io.Writer, error) { buf.Reset(); return &buf, nil }))
	var names []string
	entries := tar.NewReader(&buf)
	for {
		h, err := entries.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		names = append(names, h.Name)
	}
	slices.Sort(names)
	want := []string{
		"data/", "data/.wh.a", "data/sub/", "data/sub/.wh..wh..opq", "data/sub/other",
		"etc/", "etc/added", "etc/config", "etc/owned", "link/",
	}
	if !slices.Equal(names, want) {
		t.Errorf("entries %q\nwant %q", names, want)
	}
}

// What Changes says is what two looks at the trees say, and a commit shows the tree that
// the mount shows, whatever was done.
func TestChangesRapid(t *testing.T) {
	f := newFixture(t, config.MountProgramKernel)
	f.sample()
	before := f.tree(f.mount("before", Request{}))
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		name := fmt.Sprintf("run%d", run)
		dir := f.mount(name, Request{Access: ReadWrite, Name: name})
		for _, step := range rapid.SliceOfN(rapid.IntRange(0, 5), 1, 12).Draw(rt, "steps") {
			work(rt, dir, step)
		}
		after := f.tree(dir)
		changes, err := f.Changes(ctx, name)
		must(t, err)
		if err := judge(before, after, changes); err != nil {
			rt.Errorf("%v\nchanges: %v", err, changes)
		}
		image := "example.test/" + name + ":1"
		f.commit(name, image)
		must(t, f.Remove(ctx, name, Unmounting))
		again := f.mount(name+"again", Request{Ref: image})
		if diffs := after.Diff(f.tree(again)); len(diffs) > 0 {
			rt.Errorf("the commit: %s", strings.Join(diffs, "\n"))
		}
		must(t, f.Unmount(ctx, again))
	})
}

// work does one random thing. What can't be done is not done.
func work(rt *rapid.T, root string, step int) {
	names := rapid.SampledFrom([]string{
		"data", "data/a", "data/c", "data/sub", "data/sub/deep", "data/sub/new", "etc", "etc/config", "link", "n", "n/m", "n/m/o",
	})
	name := filepath.Join(root, names.Draw(rt, "name"))
	var err error
	switch step {
	case 0:
		err = os.Mkdir(name, 0o750)
	case 1:
		err = os.RemoveAll(name)
	case 2:
		if info, statErr := os.Lstat(name); statErr != nil || info.Mode().IsRegular() {
			err = os.WriteFile(name, []byte(rapid.StringN(0, 9, 9).Draw(rt, "content")), 0o640)
		}
	case 3:
		err = os.Symlink("data/a", name)
	case 4:
		if info, statErr := os.Lstat(name); statErr == nil && info.Mode()&os.ModeSymlink == 0 {
			err = os.Chmod(name, 0o700)
		}
	case 5:
		err = os.Rename(name, filepath.Join(root, names.Draw(rt, "to")))
	}
	_ = err // a name that is taken, or not there
}

// judge compares changes with two trees: all that was added and deleted, without what is
// in deleted directories, and at least what looks different.
func judge(before, after layertest.Tree, changes []Change) error {
	kinds := map[string]Kind{}
	for _, c := range changes {
		kinds[c.Path] = c.Kind
	}
	for p := range after {
		_, there := before[p]
		if !there && kinds[p] != Added {
			return fmt.Errorf("%s was added, not %q", p, kinds[p])
		}
		if there && p != "/" && before[p] != after[p] && kinds[p] != Changed {
			return fmt.Errorf("%s was changed, not %q", p, kinds[p])
		}
	}
	for p := range before {
		if _, there := after[p]; there {
			continue
		}
		parent, there := after[path.Dir(p)]
		if there && strings.HasPrefix(parent, layertest.TypeDir) && kinds[p] != Deleted {
			return fmt.Errorf("%s was deleted, not %q", p, kinds[p])
		}
	}
	for p, kind := range kinds {
		_, was := before[p]
		_, is := after[p]
		if is != (kind != Deleted) || was != (kind != Added) {
			return fmt.Errorf("%s is called %q", p, kind)
		}
	}
	return nil
}
