// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/strata-snapshotter/strata/overlayutil"
)

func option(m mount.Mount, prefix string) string {
	for _, o := range m.Options {
		if strings.HasPrefix(o, prefix) {
			return strings.TrimPrefix(o, prefix)
		}
	}
	return ""
}

func TestMountsOfEachKind(t *testing.T) {
	s := open(t, Config{})
	commitLayer(t, s, "one", "")
	commitLayer(t, s, "two", "one")
	root := s.cfg.Root
	for _, tc := range []struct {
		name         string
		make         func() ([]mount.Mount, error)
		mountType    string
		source, last string
		lower        string
	}{
		{"active on nothing", func() ([]mount.Mount, error) { return s.Prepare(ctx, "a0", "") }, "bind", root + "/snapshots/3/fs", "rbind", ""},
		{"active on one", func() ([]mount.Mount, error) { return s.Prepare(ctx, "a1", "one") }, "overlay", "overlay", "", root + "/layers/1/fs"},
		{"active on two", func() ([]mount.Mount, error) { return s.Prepare(ctx, "a2", "two") }, "overlay", "overlay", "", root + "/layers/2/fs:" + root + "/layers/1/fs"},
		{"view of nothing", func() ([]mount.Mount, error) { return s.View(ctx, "v0", "") }, "bind", root + "/empty", "rbind", ""},
		{"view of one", func() ([]mount.Mount, error) { return s.View(ctx, "v1", "one") }, "overlay", "overlay", "", root + "/layers/1/fs:" + root + "/empty"},
		{"extraction on nothing", func() ([]mount.Mount, error) { return s.Prepare(ctx, "default/12/extract-1-x sha256:1", "") }, "overlay", "overlay", "", root + "/empty"},
		{"extraction by label", func() ([]mount.Mount, error) {
			return s.Prepare(ctx, "any", "", labels(snapshots.LabelSnapshotRef, "r"))
		}, "overlay", "overlay", "", root + "/empty"},
	} {
		m, err := tc.make()
		if err != nil || len(m) != 1 {
			t.Fatalf("%s: %v, %v", tc.name, m, err)
		}
		if m[0].Type != tc.mountType || m[0].Source != tc.source || option(m[0], "lowerdir=") != tc.lower {
			t.Errorf("%s: %+v", tc.name, m)
		}
		if tc.last != "" && m[0].Options[len(m[0].Options)-1] != tc.last {
			t.Errorf("%s: options %v", tc.name, m[0].Options)
		}
	}
	for _, key := range []string{"a0", "a1", "a2", "v0", "v1", "any"} {
		if _, err := s.Mounts(ctx, key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestMountsAgain(t *testing.T) {
	s := open(t, Config{})
	commitLayer(t, s, "one", "")
	for _, parent := range []string{"", "one"} {
		first := prepare(t, s, "a"+parent, parent)
		again, err := s.Mounts(ctx, "a"+parent)
		if err != nil || !reflect.DeepEqual(first, again) {
			t.Errorf("Prepare %v, Mounts %v (%v)", first, again, err)
		}
	}
}

func TestExtractionKeys(t *testing.T) {
	for key, want := range map[string]bool{
		"extract-1-x sha256:1":            true,
		"default/12/extract-1-x sha256:1": true,
		"k8s.io/1/my-extract-":            false,
		"default/x/extract-1":             false,
		"container":                       false,
	} {
		if got := isExtraction(snapshots.Info{Name: key}); got != want {
			t.Errorf("%q: %v", key, got)
		}
	}
}

// A layer that holds a whiteout hides it also where it is alone.
func TestViewOfOneLayerHidesWhiteouts(t *testing.T) {
	s := open(t, Config{})
	prepare(t, s, "tmp", "")
	dir, err := os.Open(upper(t, s, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	if err := overlayutil.MakeWhiteout(int(dir.Fd()), "gone"); err != nil {
		t.Fatal(err)
	}
	if err := overlayutil.Trusted.MarkOrigin(int(dir.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "deleted", "tmp")
	view, err := s.View(ctx, "v", "deleted")
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, view, func(dir string) {
		if got := list(t, dir); len(got) != 0 {
			t.Errorf("the view shows %v", got)
		}
	})
}

func TestEmptyLayersAreLeftOut(t *testing.T) {
	s := open(t, Config{})
	commitLayer(t, s, "one", "")
	parent := "one"
	for i := range 5 {
		prepare(t, s, "tmp", parent)
		parent = fmt.Sprint("empty-", i)
		mustCommit(t, s, parent, "tmp")
	}
	commitLayer(t, s, "top", parent)
	m := prepare(t, s, "a", "top")
	if lowers := strings.Split(option(m[0], "lowerdir="), ":"); len(lowers) != 2 {
		t.Errorf("lowers %v", lowers)
	}
	mounted(t, m, func(dir string) {
		if got := list(t, dir); !slices.Equal(got, []string{"one", "top"}) {
			t.Errorf("shows %v", got)
		}
	})
}

// The root of the mount looks like the root of the topmost layer.
func TestRootAttributesAreInherited(t *testing.T) {
	s := open(t, Config{})
	prepare(t, s, "tmp", "")
	dir := upper(t, s, "tmp")
	if err := os.Chown(dir, 12, 34); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "base", "tmp")
	parent := "base"
	for i := range 3 {
		m := prepare(t, s, "tmp", parent)
		mounted(t, m, func(dir string) {
			fi, err := os.Stat(dir)
			if err != nil || fi.Mode().Perm() != 0o777 || fi.Mode()&os.ModeSticky == 0 {
				t.Errorf("%d: root is %v, %v", i, fi.Mode(), err)
			}
		})
		parent = fmt.Sprint("c", i)
		mustCommit(t, s, parent, "tmp")
	}
}

func TestTooManyLayers(t *testing.T) {
	s := open(t, Config{Durability: DurabilityNone})
	parent := ""
	made := 0
	for ; made < 520; made++ {
		name := fmt.Sprint("l", made)
		if _, err := s.Prepare(ctx, "tmp", parent); err != nil {
			if !errdefs.IsFailedPrecondition(err) {
				t.Fatalf("%d: %v", made, err)
			}
			break
		}
		write(t, filepath.Join(upper(t, s, "tmp"), name), name)
		mustCommit(t, s, name, "tmp")
		parent = name
	}
	if made < 400 || made > 501 {
		t.Fatalf("%d layers", made)
	}
	before := list(t, filepath.Join(s.cfg.Root, "snapshots"))
	if _, err := s.Prepare(ctx, "refused", parent); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("%d layers: %v", made, err)
	}
	if after := list(t, filepath.Join(s.cfg.Root, "snapshots")); !slices.Equal(before, after) {
		t.Errorf("left behind: %v", after)
	}
	// One less is all there: nothing is lost silently.
	m := prepare(t, s, "highest", fmt.Sprint("l", made-2))
	mounted(t, m, func(dir string) {
		if got := len(list(t, dir)); got != made-1 {
			t.Errorf("%d of %d layers are there", got, made-1)
		}
	})
}
