// SPDX-License-Identifier: Apache-2.0

package extstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

func TestUnusableStores(t *testing.T) {
	testutil.RequireRoot(t)
	for name, tc := range map[string]struct {
		do     func(path string) error
		reason Reason
		says   string
	}{
		"absent":          {func(string) error { return nil }, ReasonAbsent, "not there"},
		"a file":          {func(p string) error { return os.WriteFile(p, nil, 0o600) }, ReasonFormat, "not a directory"},
		"a dangling link": {func(p string) error { return os.Symlink("nowhere", p) }, ReasonAbsent, "not there"},
		"empty":           {func(p string) error { return os.Mkdir(p, 0o755) }, ReasonFormat, "no strata-store.json"},
		"half a file":     {func(p string) error { return writeStore(p, `{"form`) }, ReasonFormat, "strata-store.json can't be read"},
		"of others":       {func(p string) error { return writeStore(p, `{"format":"x","version":1}`) }, ReasonFormat, `"x"`},
		"newer":           {func(p string) error { return writeStore(p, `{"format":"strata-layers","version":2}`) }, ReasonFormat, "version 2"},
	} {
		t.Run(name, func(t *testing.T) {
			good := export(t, layertest.Layer{layertest.File("f", "x")})
			path := filepath.Join(t.TempDir(), "store")
			must(t, tc.do(path))
			s, w := openSet(t, VerifyFull, path, good.store)
			for range 3 {
				if l := found(t, s, good.layer.DiffID); l.Store != good.store {
					t.Errorf("found in %s", l.Store)
				}
			}
			if len(*w) != 1 || !strings.Contains((*w)[0], tc.says) || !strings.Contains((*w)[0], path) {
				t.Errorf("warnings %q", *w)
			}
			if got := s.Stats(); got.Skipped[tc.reason] != 3 || len(got.Skipped) != 1 || got.Found != 3 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func writeStore(path, data string) error {
	return errors.Join(os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, storeFile), []byte(data), 0o600))
}

// root may read everything; whoever may not must not be hindered.
func TestUnreadableStore(t *testing.T) {
	e := export(t, layertest.Layer{layertest.File("f", "x")})
	s, w := openSet(t, VerifyFull, e.store)
	asNobody(t, func() {
		for range 2 {
			notFound(t, s, e.layer.DiffID)
		}
	})
	if len(*w) != 1 || !strings.Contains((*w)[0], "permission denied") || s.Stats().Skipped[ReasonUnreadable] != 2 {
		t.Errorf("%q, %+v", *w, s.Stats())
	}
	// It was no verdict about the layer.
	found(t, s, e.layer.DiffID)
}

// asNobody runs fn on a thread without the privilege to read what it may not.
func asNobody(t *testing.T, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(t, unix.Setfsuid(65534))
	defer func() { must(t, unix.Setfsuid(0)) }()
	fn()
}

func TestTheFirstStoreWins(t *testing.T) {
	a := export(t, rich())
	b := filepath.Join(t.TempDir(), "b")
	must(t, Export(ctx, b, a.layer))
	s, w := openSet(t, VerifyFull, a.store, b)
	if l := found(t, s, a.layer.DiffID); l.Store != a.store {
		t.Errorf("found in %s", l.Store)
	}
	must(t, os.Remove(filepath.Join(a.dir, layerFile)))
	if l := found(t, s, a.layer.DiffID); l.Store != b || len(*w) != 1 {
		t.Errorf("found in %s, %v", l.Store, *w)
	}
}

func TestAStoreThatAppearsAndGoes(t *testing.T) {
	e := export(t, rich())
	aside := e.store + ".aside"
	must(t, os.Rename(e.store, aside))
	s, w := openSet(t, VerifyFull, e.store)
	for i := range 3 {
		notFound(t, s, e.layer.DiffID)
		must(t, os.Rename(aside, e.store))
		found(t, s, e.layer.DiffID)
		must(t, os.Rename(e.store, aside))
		if len(*w) != i+1 {
			t.Fatalf("warnings %q", *w)
		}
	}
}

// A layer is read once; one that was replaced is read again.
func TestVerifiedOnce(t *testing.T) {
	e := export(t, rich())
	s, w := openSet(t, VerifyFull, e.store)
	found(t, s, e.layer.DiffID)
	must(t, rewrite(e.fs+"/etc/passwd", "toor:x:0:0"))
	found(t, s, e.layer.DiffID)
	must(t, e.changeManifest(func(*manifest) {}))
	notFound(t, s, e.layer.DiffID)
	must(t, os.RemoveAll(e.store))
	must(t, Export(ctx, e.store, e.layer))
	found(t, s, e.layer.DiffID)
	if len(*w) != 1 {
		t.Errorf("warnings %q", *w)
	}
}

func TestManyLookUpsAtOnce(t *testing.T) {
	e := export(t, rich())
	s, err := Open(Options{Paths: []string{e.store + "x", e.store}, Warn: func(string) {}})
	must(t, err)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			l, err := s.Lookup(ctx, e.layer.DiffID)
			if err == nil {
				err = l.Close()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := s.Stats(); got.Found != 16 || got.Skipped[ReasonAbsent] != 16 {
		t.Errorf("%+v", got)
	}
}

func TestLookupEnds(t *testing.T) {
	e := export(t, rich())
	s, w := openSet(t, VerifyFull, e.store)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Lookup(ended, e.layer.DiffID); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	// Somebody else is at it.
	v := s.verdict(e.store, e.layer.DiffID)
	v.turn <- struct{}{}
	if _, err := s.Lookup(ended, e.layer.DiffID); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting: got %v", err)
	}
	<-v.turn
	found(t, s, e.layer.DiffID)
	if len(*w) > 0 {
		t.Errorf("warnings %q", *w)
	}
}

func TestLookupRefuses(t *testing.T) {
	s, _ := openSet(t, VerifyFull, t.TempDir())
	for _, d := range []digest.Digest{"", "sha256:", "sha256:../../../etc", "md5:d41d8cd98f00b204e9800998ecf8427e", "x"} {
		if _, err := s.Lookup(ctx, d); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", d, err)
		}
	}
	for _, opts := range []Options{{Paths: []string{"relative"}}, {Verify: "some"}, {Xattrs: "security."}, {Paths: []string{""}}} {
		if _, err := Open(opts); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%+v: %v", opts, err)
		}
	}
}

func TestBlobNotes(t *testing.T) {
	e := export(t, rich())
	blob := digest.FromString("blob")
	note := filepath.Join(e.store, blobsDir, digestPath(blob))
	must(t, os.MkdirAll(filepath.Dir(note), 0o755))
	for data, ok := range map[string]bool{
		e.layer.DiffID.String() + "\n":       true,
		"sha256:../../../etc\n":              false,
		"":                                   false,
		digest.FromString("x").String():      false, // a layer that is not there
		e.layer.DiffID.String() + "\nmore\n": false,
	} {
		must(t, os.WriteFile(note, []byte(data), 0o600))
		s, _ := openSet(t, VerifyFull, e.store)
		l, err := s.LookupBlob(ctx, blob)
		if (err == nil) != ok || err != nil && !errdefs.IsNotFound(err) {
			t.Errorf("%q: %v", data, err)
		}
		if err == nil {
			must(t, l.Close())
		}
	}
}

// Used from a read-only file system nothing may be written, access times on a
// writable one included.
func TestNothingIsWritten(t *testing.T) {
	e := export(t, rich())
	atimes := func() map[string]unix.Timespec {
		times := map[string]unix.Timespec{}
		must(t, filepath.WalkDir(e.store, func(path string, d os.DirEntry, err error) error {
			var st unix.Stat_t
			if err == nil && d.Type().IsRegular() && strings.HasPrefix(path, e.fs) {
				err = unix.Lstat(path, &st)
				times[path] = st.Atim
			}
			return err
		}))
		return times
	}
	past := unix.Timespec{Sec: 1}
	for path := range atimes() {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{past, {Nsec: unix.UTIME_OMIT}}, 0))
	}
	s, _ := openSet(t, VerifyFull, e.store)
	found(t, s, e.layer.DiffID)
	for path, atime := range atimes() {
		if atime != past {
			t.Errorf("%s was read at %v", path, atime)
		}
	}

	target := t.TempDir()
	testutil.CheckNoMounts(t, target)
	must(t, unix.Mount(e.store, target, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(target, 0)) })
	must(t, unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	s, w := openSet(t, VerifyFull, target)
	checkCopy(t, e.layer, found(t, s, e.layer.DiffID))
	if len(*w) > 0 {
		t.Errorf("warnings %q", *w)
	}
}

// A layer in a tree deeper than a path can be long.
func TestDeepLayer(t *testing.T) {
	name := strings.Repeat("d", 250)
	dir := t.TempDir()
	testutil.RequireRoot(t)
	f, err := os.Open(dir)
	must(t, err)
	at := f
	for i := range 40 {
		must(t, unix.Mkdirat(int(at.Fd()), name, 0o755))
		next, err := openIn(at, name, dirFlags, inTree)
		must(t, err)
		if i > 0 {
			must(t, at.Close())
		}
		at = next
	}
	must(t, unix.Mknodat(int(at.Fd()), "w", unix.S_IFCHR, 0))
	must(t, at.Close())
	l := Layer{DiffID: digest.FromString("deep"), Dir: f, Inodes: 42}
	store := filepath.Join(t.TempDir(), "store")
	must(t, Export(ctx, store, l))
	s, w := openSet(t, VerifyFull, store)
	found(t, s, l.DiffID)
	b, err := os.ReadFile(filepath.Join(store, layerPath(l.DiffID), indexFile))
	if err != nil || strings.Count(string(b), "\n") != 42 || len(*w) > 0 {
		t.Errorf("%d lines, %v, %q", strings.Count(string(b), "\n"), err, *w)
	}
	must(t, f.Close())
}

// What was written once must be read the same for ever.
func TestIndexFormat(t *testing.T) {
	e := export(t, layertest.Layer{
		layertest.Dir("a dir").Owner(1, 2),
		layertest.File("a dir/f", "data").Xattr("user.k", "\xff").At(-1, 0),
		layertest.Hardlink("b", "a dir/f").At(-1, 0),
		layertest.Symlink("c", "to\nwhere"),
		layertest.Whiteout("d"),
	})
	b, err := os.ReadFile(filepath.Join(e.dir, indexFile))
	must(t, err)
	lines := strings.SplitN(string(b), "\n", 2)
	want := `"a\x20dir" dir 0755 1 2 - 1000000000.000000000 - - - - -
"b" file 0644 0 0 4 -1.000000000 - - - "user.k"="\xff" 3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7
"c" symlink 0777 0 0 - 1000000000.000000000 - "to\nwhere" - - -
"d" char 0000 0 0 - TIME 0:0 - - - -
"a\x20dir/f" file 0644 0 0 4 -1.000000000 - - "b" "user.k"="\xff" -
`
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(e.fs, "d"), &st))
	want = strings.ReplaceAll(want, "TIME", fmt.Sprintf("%d.%09d", st.Mtim.Sec, st.Mtim.Nsec))
	if !strings.HasPrefix(lines[0], `"." dir 0755 0 0 - `) || lines[1] != want {
		t.Errorf("got\n%s", b)
	}
	var m manifest
	_, err = readJSON(openDir(t, e.dir), layerFile, &m)
	must(t, err)
	if m.Tree.Full != digest.FromBytes(b) {
		t.Errorf("tree.full is not the digest of the index")
	}
	var meta strings.Builder
	for line := range strings.Lines(string(b)) {
		meta.WriteString(line[:strings.LastIndexByte(line, ' ')] + "\n")
	}
	if m.Tree.Metadata != digest.FromString(meta.String()) {
		t.Errorf("tree.metadata is not the digest of the index without contents")
	}
}

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f
}

func TestUserNamespaceLayers(t *testing.T) {
	l := mustExtract(t, layertest.Layer{layertest.File("f", "x")})
	l.Xattrs = overlayutil.User
	store := t.TempDir()
	must(t, Export(ctx, store, l))
	s, err := Open(Options{Paths: []string{store}, Xattrs: overlayutil.User})
	must(t, err)
	if got := found(t, s, l.DiffID); got.Xattrs != overlayutil.User {
		t.Errorf("namespace %q", got.Xattrs)
	}
	trusted, _ := openSet(t, VerifyNone, store)
	notFound(t, trusted, l.DiffID)
}
