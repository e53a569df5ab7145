// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/metadata"
)

// layers are blobs for the tests: uncompressed tars by digest. They are what a
// snapshotter asks for a blob that it needs once more.
type layers map[digest.Digest][]byte

func (l layers) ApplyOnto(ctx context.Context, desc ocispec.Descriptor, dir *os.File, opts archive.Options) (archive.Result, error) {
	data, ok := l[desc.Digest]
	if !ok {
		return archive.Result{}, fmt.Errorf("blob %s: %w", desc.Digest, errdefs.ErrNotFound)
	}
	return archive.ApplyOnto(ctx, archive.FromReader(bytes.NewReader(data)), dir, opts)
}

// add makes a layer of headers; files hold their own name.
func (l layers) add(t *testing.T, headers ...tar.Header) ocispec.Descriptor {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.ModTime = time.Unix(1_000_000_000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(b.Bytes())
	l[d] = b.Bytes()
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(b.Len())}
}

// apply does what the differ does with the mounts of a snapshot.
func (l layers) apply(t *testing.T, s *Snapshotter, mounts []mount.Mount, desc ocispec.Descriptor) error {
	t.Helper()
	stage, err := s.Stage(ctx, mounts, desc)
	if err != nil {
		return err
	}
	if _, adopted, err := stage.Adopt(ctx); adopted || err != nil {
		if err := stage.Release(); err != nil {
			t.Error(err)
		}
		return err
	}
	result, err := archive.Apply(ctx, archive.FromReader(bytes.NewReader(l[desc.Digest])), stage.Dir(), stage.Options())
	if err == nil {
		err = stage.Seal(ctx, desc, result)
	}
	if err := stage.Release(); err != nil {
		t.Error(err)
	}
	return err
}

// unpack makes the committed snapshot name of a layer, with its parent known from
// the beginning or only at the end.
func (l layers) unpack(t *testing.T, s *Snapshotter, name, parent string, late bool, desc ocispec.Descriptor) {
	t.Helper()
	first, opts := parent, []snapshots.Opt{}
	if late {
		first, opts = "", append(opts, snapshots.WithParent(parent))
	}
	m := prepare(t, s, "default/1/extract-"+name, first)
	if err := l.apply(t, s, m, desc); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, name, "default/1/extract-"+name, opts...)
}

var (
	privateDir = tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o700, Uid: 5, Gid: 6}
	fileInDir  = tar.Header{Typeflag: tar.TypeReg, Name: "d/file"}
)

func bothWays(t *testing.T, fn func(t *testing.T, late bool)) {
	t.Run("parent known", func(t *testing.T) { fn(t, false) })
	t.Run("parent late", func(t *testing.T) { fn(t, true) })
}

// A directory without an entry looks as in the layers below, by a patch, and the
// layer itself does not have to be touched for it.
func TestImplicitDirectoryGetsAPatch(t *testing.T) {
	bothWays(t, func(t *testing.T, late bool) {
		s, l := open(t, Config{}), layers{}
		l.unpack(t, s, "base", "", false, l.add(t, privateDir))
		l.unpack(t, s, "top", "base", late, l.add(t, fileInDir))
		sn, err := s.get("top")
		if err != nil || sn.Patch == 0 {
			t.Fatalf("patch %d, %v", sn.Patch, err)
		}
		mounted(t, prepare(t, s, "c", "top"), func(dir string) {
			if got := owners(t, filepath.Join(dir, "d")); got != [2]uint32{5, 6} {
				t.Errorf("d belongs to %v", got)
			}
			fi, err := os.Stat(filepath.Join(dir, "d"))
			if err != nil || fi.Mode().Perm() != 0o700 || fi.ModTime().Unix() != 1_000_000_000 {
				t.Errorf("d: %v %v, %v", fi.Mode(), fi.ModTime(), err)
			}
			if got := list(t, filepath.Join(dir, "d")); !slices.Equal(got, []string{"file"}) {
				t.Errorf("d holds %v", got)
			}
		})
		if got := owners(t, filepath.Join(s.store.LayerPath(sn.Layer), "d")); got != [2]uint32{} {
			t.Errorf("in the layer d belongs to %v", got)
		}
		mustRemove(t, s, "c", "top")
		if err := s.Cleanup(ctx); err != nil {
			t.Fatal(err)
		}
		if got := list(t, filepath.Join(s.cfg.Root, "layers")); len(got) != 1 {
			t.Errorf("layers holds %v", got)
		}
	})
}

func TestUsageOfAnExtractedLayerIsWhatAWalkFinds(t *testing.T) {
	s, l := open(t, Config{}), layers{}
	desc := l.add(t, privateDir, fileInDir, tar.Header{Typeflag: tar.TypeLink, Name: "again", Linkname: "d/file"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "d"}, tar.Header{Typeflag: tar.TypeReg, Name: ".wh.gone"})
	m := prepare(t, s, "default/1/extract-x", "")
	if err := l.apply(t, s, m, desc); err != nil {
		t.Fatal(err)
	}
	want, err := s.Usage(ctx, "default/1/extract-x")
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "x", "default/1/extract-x")
	if got, err := s.Usage(ctx, "x"); err != nil || got != want {
		t.Errorf("got %+v, %v; a walk found %+v", got, err, want)
	}
	sn, err := s.get("x")
	if err != nil {
		t.Fatal(err)
	}
	err = s.meta.View(func(tx *metadata.Tx) error {
		if id, err := tx.DiffIDOf(desc.Digest); err != nil || id != desc.Digest { // it is not compressed
			t.Errorf("the blob is known as %s, %v", id, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := list(t, filepath.Dir(s.store.LayerPath(sn.Layer))); !slices.Equal(got, []string{"fs", "index", "layer.json"}) {
		t.Errorf("beside the layer: %v", got)
	}
}

// Below a link of the parents the file belongs where the link leads: only on a
// mount of them that can be known.
func TestFileBelowALinkOfTheParents(t *testing.T) {
	bothWays(t, func(t *testing.T, late bool) {
		s, l := open(t, Config{}), layers{}
		s.UseUnpacker(l)
		l.unpack(t, s, "base", "", false, l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "usr/lib/"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib"}))
		l.unpack(t, s, "top", "base", late, l.add(t, tar.Header{Typeflag: tar.TypeReg, Name: "lib/x"}))
		mounted(t, prepare(t, s, "c", "top"), func(dir string) {
			if got := list(t, filepath.Join(dir, "usr/lib")); !slices.Equal(got, []string{"x"}) {
				t.Errorf("usr/lib holds %v", got)
			}
			if target, err := os.Readlink(filepath.Join(dir, "lib")); err != nil || target != "usr/lib" {
				t.Errorf("lib leads to %q, %v", target, err)
			}
		})
	})
}

func TestHardLinkToTheParents(t *testing.T) {
	bothWays(t, func(t *testing.T, late bool) {
		s, l := open(t, Config{}), layers{}
		s.UseUnpacker(l)
		l.unpack(t, s, "base", "", false, l.add(t, tar.Header{Typeflag: tar.TypeReg, Name: "f"}))
		l.unpack(t, s, "top", "base", late, l.add(t, tar.Header{Typeflag: tar.TypeLink, Name: "g", Linkname: "f"}))
		mounted(t, prepare(t, s, "c", "top"), func(dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "g"))
			if err != nil || string(b) != "f" {
				t.Errorf("g holds %q, %v", b, err)
			}
		})
	})
}

func TestLayerThatNeedsItsBlobAgainWithoutIt(t *testing.T) {
	s, l := open(t, Config{}), layers{}
	l.unpack(t, s, "base", "", false, l.add(t, tar.Header{Typeflag: tar.TypeReg, Name: "f"}))
	m := prepare(t, s, "default/1/extract-top", "")
	if err := l.apply(t, s, m, l.add(t, tar.Header{Typeflag: tar.TypeLink, Name: "g", Linkname: "f"})); err != nil {
		t.Fatal(err)
	}
	err := s.Commit(ctx, "top", "default/1/extract-top", snapshots.WithParent("base"))
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
	mustRemove(t, s, "default/1/extract-top")
}

// A layer whose extraction onto those below it failed at Commit can't be committed
// as it is; the next Commit extracts it once more.
func TestCommitAfterAFailedExtraction(t *testing.T) {
	s, l := open(t, Config{}), layers{}
	s.UseUnpacker(l)
	l.unpack(t, s, "base", "", false, l.add(t, tar.Header{Typeflag: tar.TypeReg, Name: "f"}))
	m := prepare(t, s, "default/1/extract-top", "")
	desc := l.add(t, tar.Header{Typeflag: tar.TypeLink, Name: "g", Linkname: "f"})
	if err := l.apply(t, s, m, desc); err != nil {
		t.Fatal(err)
	}
	blob := l[desc.Digest]
	delete(l, desc.Digest)
	for range 2 {
		if err := s.Commit(ctx, "top", "default/1/extract-top", snapshots.WithParent("base")); !errdefs.IsNotFound(err) {
			t.Errorf("without its blob: %v", err)
		}
	}
	l[desc.Digest] = blob
	mustCommit(t, s, "top", "default/1/extract-top", snapshots.WithParent("base"))
	mounted(t, prepare(t, s, "c", "top"), func(dir string) {
		if got := list(t, dir); !slices.Equal(got, []string{"f", "g"}) {
			t.Errorf("shows %v", got)
		}
	})
}

func TestSealSurvivesARestart(t *testing.T) {
	s, l := open(t, Config{}), layers{}
	l.unpack(t, s, "base", "", false, l.add(t, privateDir))
	m := prepare(t, s, "default/1/extract-top", "")
	if err := l.apply(t, s, m, l.add(t, fileInDir)); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	mustCommit(t, s, "top", "default/1/extract-top", snapshots.WithParent("base"))
	if sn, err := s.get("top"); err != nil || sn.Patch == 0 {
		t.Errorf("what was found out is forgotten: %+v, %v", sn, err)
	}
}

func TestRefusedLayerLeavesNothing(t *testing.T) {
	s, l := open(t, Config{}), layers{}
	m := prepare(t, s, "default/1/extract-x", "")
	bad := l.add(t, fileInDir, tar.Header{Typeflag: tar.TypeChar, Name: "zero"})
	if err := l.apply(t, s, m, bad); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	if got := list(t, upper(t, s, "default/1/extract-x")); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	if err := l.apply(t, s, m, l.add(t, fileInDir)); err != nil {
		t.Errorf("the second try: %v", err)
	}
	mustCommit(t, s, "x", "default/1/extract-x")
}

// A second layer into one snapshot: what was found out of the first is no longer
// true, and the second has to go onto it.
func TestSecondLayerIntoOneSnapshot(t *testing.T) {
	s, l := open(t, Config{}), layers{}
	m := prepare(t, s, "default/1/extract-x", "")
	if err := l.apply(t, s, m, l.add(t, privateDir)); err != nil {
		t.Fatal(err)
	}
	if err := l.apply(t, s, m, l.add(t, fileInDir)); !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	write(t, filepath.Join(upper(t, s, "default/1/extract-x"), "more"), "x")
	mustCommit(t, s, "x", "default/1/extract-x")
	if u, err := s.Usage(ctx, "x"); err != nil || u.Inodes != 3 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestStageIsForOurMountsOnly(t *testing.T) {
	s := open(t, Config{})
	commitLayer(t, s, "base", "")
	view, err := s.View(ctx, "v", "base")
	if err != nil {
		t.Fatal(err)
	}
	bind := prepare(t, s, "bind", "")
	for name, m := range map[string][]mount.Mount{
		"none": nil, "view": view, "bind": bind,
		"another's": {{Type: "overlay", Options: []string{"upperdir=/var/lib/other/snapshots/1/fs"}}},
		"gone":      {{Type: "overlay", Options: []string{"upperdir=" + s.store.UpperPath(99)}}},
	} {
		if _, err := s.Stage(ctx, m, ocispec.Descriptor{}); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A Commit that fails after the patch was made removes it.
func TestFailedCommitRemovesItsPatch(t *testing.T) {
	s, l := open(t, Config{}), layers{}
	l.unpack(t, s, "base", "", false, l.add(t, privateDir))
	m := prepare(t, s, "default/1/extract-top", "base")
	if err := l.apply(t, s, m, l.add(t, fileInDir)); err != nil {
		t.Fatal(err)
	}
	request := metadata.Commit{Key: "default/1/extract-top", Name: "top"}
	active, err := s.checkCommit(request)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.makeReady(ctx, active, &request)
	if err != nil || r.patch.layer.Number == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	request.Name = "base" // taken, as by somebody who was quicker
	request.Patch = r.patch.layer
	err = s.publish(ctx, request, active, r.content)
	if !errdefs.IsAlreadyExists(s.dropPatch(ctx, r.patch, err)) {
		t.Errorf("got %v", err)
	}
	r.patch.end()
	if err := s.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	checkStore(t, s)
	mustCommit(t, s, "top", "default/1/extract-top")
}

// A patch has the directories that lead to those it is about. What the layer says
// of them must show, not what the layers below say.
func TestPatchBelowADirectoryWithAnEntry(t *testing.T) {
	bothWays(t, func(t *testing.T, late bool) {
		s, l := open(t, Config{}), layers{}
		l.unpack(t, s, "base", "", false, l.add(t, privateDir, tar.Header{Typeflag: tar.TypeDir, Name: "d/e/", Mode: 0o711, Uid: 7, Gid: 8}))
		l.unpack(t, s, "top", "base", late, l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o750, Uid: 9, Gid: 9},
			tar.Header{Typeflag: tar.TypeReg, Name: "d/e/file"}))
		mounted(t, prepare(t, s, "c", "top"), func(dir string) {
			for rel, want := range map[string][2]uint32{"d": {9, 9}, "d/e": {7, 8}} {
				if got := owners(t, filepath.Join(dir, rel)); got != want {
					t.Errorf("%s belongs to %v, want %v", rel, got, want)
				}
			}
			fi, err := os.Stat(filepath.Join(dir, "d"))
			if err != nil || fi.Mode().Perm() != 0o750 {
				t.Errorf("d: %v, %v", fi.Mode(), err)
			}
		})
	})
}

// A transaction that fails after the directory was moved: the snapshot is as it
// was, and can be committed.
func TestFailedTransactionTakesThePublishBack(t *testing.T) {
	s := open(t, Config{})
	prepare(t, s, "a", "")
	write(t, filepath.Join(upper(t, s, "a"), "mine"), "data")
	sn, err := s.get("a")
	if err != nil {
		t.Fatal(err)
	}
	request := metadata.Commit{Key: "a", Name: "c", Blob: "sha256:broken", DiffID: "sha256:broken"}
	content, err := s.store.Seal(ctx, sn.Number)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.publish(ctx, request, sn, content); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	checkStore(t, s)
	if got := list(t, upper(t, s, "a")); !slices.Equal(got, []string{"mine"}) {
		t.Errorf("the snapshot holds %v", got)
	}
	mustCommit(t, s, "c", "a")
}
