// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
)

// Whatever way a layer came about, it is what its index says.
func TestExtractedLayersHaveIndexes(t *testing.T) {
	for name, top := range map[string][]tar.Header{
		"alone":             {privateDir, fileInDir},
		"with a patch":      {fileInDir},
		"onto others":       {{Typeflag: tar.TypeLink, Name: "link", Linkname: "d/below"}, {Typeflag: tar.TypeReg, Name: ".wh.e"}},
		"replacing its own": {{Typeflag: tar.TypeReg, Name: "x"}, {Typeflag: tar.TypeDir, Name: "x/"}, {Typeflag: tar.TypeReg, Name: "x/y"}},
		"empty":             {},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, late bool) {
				s, l := open(t, Config{}), layers{}
				s.UseUnpacker(l)
				below := tar.Header{Typeflag: tar.TypeReg, Name: "d/below"}
				l.unpack(t, s, "base", "", false, l.add(t, privateDir, below, tar.Header{Typeflag: tar.TypeReg, Name: "e"}))
				l.unpack(t, s, "top", "base", late, l.add(t, top...))
				all, err := s.LayerNumbers()
				if err != nil {
					t.Fatal(err)
				}
				checkIndexes(t, s, len(all))
			})
		})
	}
}

// What a client wrote to after the extraction, or instead of one, has no index: neither
// an index that is wrong nor one that blesses what nobody extracted.
func TestWhatOthersWroteHasNoIndex(t *testing.T) {
	s, l := open(t, Config{}), layers{}
	l.unpack(t, s, "base", "", false, l.add(t, privateDir))
	desc := l.add(t, privateDir, fileInDir)
	m := prepare(t, s, "mine", "base")
	if err := l.apply(t, s, m, desc); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(upper(t, s, "mine")), "index")); err != nil {
		t.Fatalf("the test shows nothing: %v", err)
	}
	write(t, filepath.Join(upper(t, s, "mine"), "more"), "more")
	mustCommit(t, s, "written to", "mine")
	prepare(t, s, "default/1/extract-other", "")
	write(t, filepath.Join(upper(t, s, "default/1/extract-other"), "file"), "file")
	mustCommit(t, s, "other", "default/1/extract-other")
	checkIndexes(t, s, 1) // base
}

func TestDamageIsSeen(t *testing.T) {
	s, l := open(t, Config{}), layers{}
	l.unpack(t, s, "base", "", false, l.add(t, privateDir, fileInDir))
	sn, err := s.get("base")
	if err != nil {
		t.Fatal(err)
	}
	fscktest.Damaged(s.cfg.Root, fsck.CodeUsageMeasured)
	if err := os.Remove(filepath.Join(s.store.LayerPath(sn.Layer), "d/file")); err != nil {
		t.Fatal(err)
	}
	v, err := s.VerifyLayer(ctx, sn.Layer, nil)
	if err != nil || !v.Indexed || v.Damaged != nil || v.DiffID == "" || v.Problems["missing"].Count != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := s.VerifyLayer(ctx, 4000, nil); !errdefs.IsNotFound(err) {
		t.Errorf("no such layer: %v", err)
	}
}
