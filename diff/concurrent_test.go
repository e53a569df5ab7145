// SPDX-License-Identifier: Apache-2.0

package diff_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sync/errgroup"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/internal/testimage"
)

// TestConcurrentCalls is for the race detector: one Differ serves all of containerd.
func TestConcurrentCalls(t *testing.T) {
	s := newStore(t)
	checkGoroutines(t)
	n := newSnapshot(t)
	d := n.differs(s)["own"]
	first, _ := foreignLayers(t, s)
	ctx := inNamespace(t)
	var group errgroup.Group
	for i := range 8 {
		dir := t.TempDir()
		group.Go(func() error {
			if _, err := d.Apply(ctx, first, bindMount(dir, "rw")); err != nil {
				return fmt.Errorf("apply %d: %w", i, err)
			}
			if _, err := d.Compare(ctx, n.lower, n.upper); err != nil {
				return fmt.Errorf("compare %d: %w", i, err)
			}
			return nil
		})
	}
	must(t, group.Wait())
}

// TestApplyOnto is what a Commit does that has learnt the layer's parent.
func TestApplyOnto(t *testing.T) {
	s := newStore(t)
	d := diff.New(diff.Config{Services: s.services()})
	base := t.TempDir()
	write(t, base+"/usr/lib/old", "old")
	must(t, os.Symlink("usr/lib", base+"/lib"))
	desc := s.put(ociTar+"+zstd", zstded(t, tarOf(t, testimage.File("lib/new", "new"))))
	dir, err := os.Open(base)
	must(t, err)
	defer func() { must(t, dir.Close()) }()
	result, err := d.ApplyOnto(inNamespace(t), desc, dir, archive.Options{})
	must(t, err)
	if result.DiffID == "" || result.Size == 0 {
		t.Errorf("result is %+v", result)
	}
	expect(t, "the directory", tree(t, base), []string{"lib", "usr", "usr/lib", "usr/lib/new=new", "usr/lib/old=old"}, slices.Equal)
	desc.MediaType += "+encrypted"
	if _, err := d.ApplyOnto(inNamespace(t), desc, dir, archive.Options{}); !errdefs.IsNotImplemented(err) {
		t.Errorf("an encrypted layer: %v", err)
	}
}

// TestLayerThatNeedsItsParents can't be unpacked where nobody will ask for them later.
func TestLayerThatNeedsItsParents(t *testing.T) {
	s := newStore(t)
	d := diff.New(diff.Config{Services: s.services()})
	desc := s.put(ociTar, tarOf(t, testimage.Hardlink("new", "in-a-layer-below")))
	p := mkdirs(t, t.TempDir(), "upper")
	_, err := d.Apply(inNamespace(t), desc, overlayMount("rw", "upperdir="+p[0]))
	if !errdefs.IsFailedPrecondition(err) {
		t.Error(err)
	}
	expect(t, "the directory", tree(t, p[0]), []string{}, slices.Equal)
}
