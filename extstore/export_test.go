// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// checkCopy looks at a layer as whoever uses it will.
func checkCopy(t testing.TB, want Layer, got *Layer) {
	t.Helper()
	src, dst := want.Dir.Name(), filepath.Join(got.Store, got.Path)
	if diff := dump(t, src).Diff(dump(t, dst)); len(diff) > 0 {
		t.Fatalf("the copy differs:\n%s", strings.Join(diff, "\n"))
	}
	if !maps.Equal(mtimes(t, src), mtimes(t, dst)) {
		t.Fatalf("times differ: %v, %v", mtimes(t, src), mtimes(t, dst))
	}
	same := got.DiffID == want.DiffID && got.Size == want.Size && got.Bytes == want.Bytes && got.Inodes == want.Inodes &&
		got.Empty == want.Empty && got.OpaqueRoot == want.OpaqueRoot && reflect.DeepEqual(got.Needs, want.Needs)
	if !same {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

func TestExport(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	l := mustExtract(t, rich())
	must(t, unix.Mknod(filepath.Join(l.Dir.Name(), "socket"), unix.S_IFSOCK|0o640, 0))
	for fs, dir := range map[string]string{"the same file system": t.TempDir(), "another": testutil.Tmpfs(t)} {
		t.Run(fs, func(t *testing.T) {
			store := filepath.Join(dir, "made", "store")
			must(t, Export(ctx, store, l))
			for _, verify := range []Verify{VerifyFull, VerifyMetadata, VerifyNone} {
				s, w := openSet(t, verify, store)
				checkCopy(t, l, found(t, s, l.DiffID))
				if len(*w) > 0 {
					t.Errorf("%s: %v", verify, *w)
				}
			}
			if got := names(t, store); !reflect.DeepEqual(got, []string{layersDir, storeFile}) {
				t.Errorf("the store holds %v", got)
			}
			if got := names(t, filepath.Join(store, layerPath(l.DiffID))); !reflect.DeepEqual(got, []string{fsName, indexFile, layerFile}) {
				t.Errorf("the layer holds %v", got)
			}
		})
	}
}

// Users of the host must not get at the setuid files of images.
func TestExportedLayersAreNotForEverybody(t *testing.T) {
	l := mustExtract(t, rich())
	store := t.TempDir()
	must(t, Export(ctx, store, l))
	fi, err := os.Stat(filepath.Join(store, layersDir))
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestExportOfRandomLayers(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	store := filepath.Join(base, "store")
	count := 0
	rapid.Check(t, func(rt *rapid.T) {
		for _, layer := range layertest.Image().Draw(rt, "image") {
			count++
			l, err := extract(filepath.Join(base, fmt.Sprint("layer", count)), layer)
			if err != nil {
				continue // refused: archive's tests know why
			}
			exportRandom(t, rt, store, l)
			must(t, l.Close())
		}
	})
}

func exportRandom(t *testing.T, rt *rapid.T, store string, l Layer) {
	err := Export(ctx, store, l)
	if l.Needs.Mounted != "" {
		if !errdefs.IsFailedPrecondition(err) {
			rt.Fatalf("a layer of one chain: %v", err)
		}
		return
	}
	must(t, err)
	s, w := openSet(t, VerifyFull, store)
	got, err := s.Lookup(ctx, l.DiffID)
	if err != nil || len(*w) > 0 {
		rt.Fatalf("%v, %v", err, *w)
	}
	// Times of directories without an entry are those of the first extraction.
	if diff := dump(t, l.Dir.Name()).Diff(dump(t, filepath.Join(store, got.Path))); len(diff) > 0 {
		rt.Fatalf("the copy differs:\n%s", strings.Join(diff, "\n"))
	}
	must(t, got.Close())
}

func TestExportKeepsHoles(t *testing.T) {
	l := mustExtract(t, layertest.Layer{layertest.File("f", "x")})
	f, err := os.OpenFile(filepath.Join(l.Dir.Name(), "f"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("middle"), 32<<20)
	must(t, errors.Join(err, f.Truncate(64<<20), f.Close()))
	// tmpfs and the disk have no way to share blocks.
	store := filepath.Join(testutil.Tmpfs(t), "store")
	must(t, Export(ctx, store, l))
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(store, layerPath(l.DiffID), fsName, "f"), &st))
	if st.Size != 64<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes take %d", st.Size, st.Blocks*512)
	}
	s, _ := openSet(t, VerifyFull, store)
	found(t, s, l.DiffID)
}

func TestExportToAFileSystemThatSharesBlocks(t *testing.T) {
	dir := testutil.LoopFS(t, "xfs", 512, "-q", "-m", "reflink=1")
	testutil.RequireRoot(t)
	l, err := extract(filepath.Join(dir, "layer"), rich())
	must(t, err)
	store := filepath.Join(dir, "store")
	must(t, errors.Join(Export(ctx, store, l)))
	s, w := openSet(t, VerifyFull, store)
	got, err := s.Lookup(ctx, l.DiffID)
	if err != nil {
		t.Fatal(err, *w)
	}
	checkCopy(t, l, got)
	must(t, errors.Join(got.Close(), l.Close()))
}

func TestExportInheritsNothing(t *testing.T) {
	l := mustExtract(t, rich())
	store := t.TempDir()
	must(t, os.Chown(store, 0, 99))
	must(t, os.Chmod(store, 0o755|os.ModeSetgid))
	acl := []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 5, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
		16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 5, 0, 255, 255, 255, 255}
	must(t, unix.Setxattr(store, aclDefault, acl, 0))
	must(t, Export(ctx, store, l))
	s, _ := openSet(t, VerifyFull, store)
	checkCopy(t, l, found(t, s, l.DiffID))
}

func TestExportAgain(t *testing.T) {
	l := mustExtract(t, rich())
	store := t.TempDir()
	a, b := digest.FromString("gzip"), digest.FromString("zstd")
	l.Blobs = []digest.Digest{a, a}
	must(t, Export(ctx, store, l))
	before := mtimes(t, filepath.Join(store, layerPath(l.DiffID), fsName))
	l.Blobs = []digest.Digest{b}
	must(t, Export(ctx, store, l))
	if after := mtimes(t, filepath.Join(store, layerPath(l.DiffID), fsName)); !maps.Equal(before, after) {
		t.Error("the layer was written again")
	}
	s, _ := openSet(t, VerifyFull, store)
	got := found(t, s, l.DiffID)
	if !reflect.DeepEqual(got.Blobs, []digest.Digest{a, b}) {
		t.Errorf("blobs %v", got.Blobs)
	}
	for _, blob := range got.Blobs {
		l2, err := s.LookupBlob(ctx, blob)
		if err != nil || l2.DiffID != l.DiffID {
			t.Fatalf("%+v, %v", l2, err)
		}
		must(t, l2.Close())
	}
	if _, err := s.LookupBlob(ctx, digest.FromString("other")); !errdefs.IsNotFound(err) {
		t.Errorf("unknown blob: %v", err)
	}
	if _, err := s.LookupBlob(ctx, ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no blob: %v", err)
	}
}

func TestExportOfWhatWasFound(t *testing.T) {
	l := mustExtract(t, rich())
	first, second := t.TempDir(), t.TempDir()
	must(t, Export(ctx, first, l))
	s, _ := openSet(t, VerifyFull, first)
	must(t, Export(ctx, second, *found(t, s, l.DiffID)))
	s, _ = openSet(t, VerifyFull, second)
	checkCopy(t, l, found(t, s, l.DiffID))
}

func TestManyExportAtOnce(t *testing.T) {
	l := mustExtract(t, rich())
	store := filepath.Join(t.TempDir(), "store")
	var wg sync.WaitGroup
	for i := range 8 {
		mine := l
		mine.Blobs = []digest.Digest{digest.FromString(fmt.Sprint(i))}
		wg.Go(func() {
			if err := Export(ctx, store, mine); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, w := openSet(t, VerifyFull, store)
	checkCopy(t, l, found(t, s, l.DiffID))
	if got := names(t, store); !reflect.DeepEqual(got, []string{blobsDir, layersDir, storeFile}) || len(*w) > 0 {
		t.Errorf("the store holds %v, %v", got, *w)
	}
}

func TestExportAfterACrash(t *testing.T) {
	l := mustExtract(t, rich())
	store := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(store, tempPrefix+"crashed/layer/fs/d"), 0o700))
	// Another tool stopped in the middle of copying the layer.
	must(t, os.MkdirAll(filepath.Join(store, layerPath(l.DiffID), fsName, "half"), 0o700))
	// Somebody else is at work.
	busy := filepath.Join(store, tempPrefix+"busy")
	must(t, os.Mkdir(busy, 0o700))
	f, err := os.Open(busy)
	must(t, err)
	must(t, lock(f))
	must(t, Export(ctx, store, l))
	if got := names(t, store); !reflect.DeepEqual(got, []string{filepath.Base(busy), layersDir, storeFile}) {
		t.Errorf("the store holds %v", got)
	}
	must(t, f.Close())
	s, _ := openSet(t, VerifyFull, store)
	checkCopy(t, l, found(t, s, l.DiffID))
}

func TestExportRefuses(t *testing.T) {
	l := mustExtract(t, rich())
	marked := mustExtract(t, layertest.Layer{layertest.Dir("d")})
	must(t, unix.Setxattr(filepath.Join(marked.Dir.Name(), "d"), "trusted.overlay.redirect", []byte("/e"), 0))
	foreign, newer, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(newer, storeFile), []byte(`{"format":"strata-layers","version":9}`), 0o600))
	must(t, os.WriteFile(file, nil, 0o600))
	change := func(fn func(*Layer)) Layer {
		c := l
		fn(&c)
		return c
	}
	for name, tc := range map[string]struct {
		dst  string
		l    Layer
		is   func(error) bool
		text string
	}{
		"no diffID":        {"", change(func(l *Layer) { l.DiffID = "" }), errdefs.IsInvalidArgument, "diffID"},
		"a bad diffID":     {"", change(func(l *Layer) { l.DiffID = "sha256:../../x" }), errdefs.IsInvalidArgument, "diffID"},
		"a bad blob":       {"", change(func(l *Layer) { l.Blobs = []digest.Digest{"x"} }), errdefs.IsInvalidArgument, "blob"},
		"no directory":     {"", change(func(l *Layer) { l.Dir = nil }), errdefs.IsInvalidArgument, "open"},
		"no usage":         {"", change(func(l *Layer) { l.Bytes = -1 }), errdefs.IsInvalidArgument, "usage"},
		"a bad namespace":  {"", change(func(l *Layer) { l.Xattrs = "security." }), errdefs.IsInvalidArgument, "namespace"},
		"of one chain":     {"", change(func(l *Layer) { l.Needs = archive.Needs{Mounted: "why"} }), errdefs.IsFailedPrecondition, "why"},
		"redirected":       {"", marked, errdefs.IsFailedPrecondition, `"d"`},
		"something else":   {foreign, l, errdefs.IsFailedPrecondition, "thesis.tex"},
		"a newer store":    {newer, l, errdefs.IsFailedPrecondition, "version 9"},
		"not a directory":  {file, l, errdefs.IsFailedPrecondition, "file"},
		"no privilege for": {"", change(func(l *Layer) { l.Xattrs = overlayutil.User + "x" }), errdefs.IsInvalidArgument, "namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.dst == "" {
				tc.dst = filepath.Join(t.TempDir(), "store")
			}
			err := Export(ctx, tc.dst, tc.l)
			if !tc.is(err) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("got %v", err)
			}
			if m, _ := filepath.Glob(filepath.Join(tc.dst, layersDir, "*/*")); len(m) > 0 {
				t.Errorf("left behind: %v", m)
			}
			if m, _ := filepath.Glob(filepath.Join(tc.dst, tempPrefix+"*")); len(m) > 0 {
				t.Errorf("left behind: %v", m)
			}
		})
	}
}

func TestExportToAFullDisk(t *testing.T) {
	l := mustExtract(t, rich())
	dir := t.TempDir()
	testutil.CheckNoMounts(t, dir)
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"))
	defer func() { must(t, unix.Unmount(dir, 0)) }()
	if err := Export(ctx, dir, l); !errdefs.IsResourceExhausted(err) {
		t.Errorf("got %v", err)
	}
	s, w := openSet(t, VerifyFull, dir)
	notFound(t, s, l.DiffID)
	if len(*w) > 0 {
		t.Errorf("left behind: %v", *w)
	}
}
