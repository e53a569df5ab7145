// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package snapshotter

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// What a crashing process is told by its parent.
const (
	crashRoot  = "STRATA_CRASH_ROOT"
	crashStore = "STRATA_CRASH_STORE" // an additional store
)

// crashLayer is in the additional store alone.
const crashLayer = 5

func crashConfig(root, store string) Config {
	return Config{Root: root, Staging: knowsStaging, AdditionalStores: []string{store}}
}

// afterCrash are points that are only reached by the start after a crash at another.
var afterCrash = map[failpoint.Point]failpoint.Point{
	failpoint.LayerUnplace:  failpoint.LayerPlaced,
	failpoint.LayerUnplaced: failpoint.LayerPlaced,

	failpoint.RecoverWritten: failpoint.TransactionLogged,
	failpoint.RecoverPlaced:  failpoint.TransactionLogged,
}

// TestCrashChild is the process that crashes.
func TestCrashChild(t *testing.T) {
	root := os.Getenv(crashRoot)
	if root == "" {
		t.Skip("is run by TestCrashAtEveryPoint")
	}
	runSequence(t, crashConfig(root, os.Getenv(crashStore)), newCrashLibrary(t))
}

// A crash at every step of everything, once early, once late and once between: nothing
// that is named is missing, nothing is left that nobody names, every image is right, and
// all can be done again.
func TestCrashAtEveryPoint(t *testing.T) {
	store := exported(t, 0, crashLayer)
	l := newCrashLibrary(t)
	failpoint.Reset()
	runSequence(t, crashConfig(filepath.Join(testutil.Tmpfs(t), "root"), store), l)
	counts := map[failpoint.Point]int{}
	for _, p := range failpoint.Points() {
		counts[p] = failpoint.Reached(p)
	}
	for _, p := range failpoint.Points() {
		t.Run(string(p), func(t *testing.T) {
			before, twice := afterCrash[p]
			if !twice && counts[p] == 0 {
				t.Fatal("the sequence does not get there")
			}
			hits := []int{1, counts[p]/2 + 1, counts[p]}
			if twice {
				hits = hits[:1]
			}
			for _, hit := range slices.Compact(hits) {
				root := filepath.Join(testutil.Tmpfs(t), "root")
				if twice {
					crashAt(t, root, store, before, 1)
				}
				// How often the background comes by is not always the same.
				if !crashAt(t, root, store, p, hit) && hit == 1 {
					t.Error("it did not crash")
				}
				checkAfterCrash(t, root, store, l)
			}
		})
	}
}

// crashAt runs the sequence in a process that is killed when it comes to p. Its mounts go
// with it.
func crashAt(t *testing.T, root, store string, p failpoint.Point, hit int) (crashed bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$")
	cmd.Env = append(os.Environ(), crashRoot+"="+root, crashStore+"="+store,
		fmt.Sprintf("%s=%s=crash@%d", failpoint.Environment, p, hit), "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return false
}

func checkAfterCrash(t *testing.T, root, store string, l crashLibrary) {
	t.Helper()
	s := open(t, crashConfig(root, store))
	s.UseUnpacker(l)
	inOrder(t, s, l)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	runSequence(t, s.cfg, l)
}

// inOrder is what a store has to be like after one Cleanup.
func inOrder(t *testing.T, s *Snapshotter, l crashLibrary) {
	t.Helper()
	if err := s.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	if got := list(t, filepath.Join(s.cfg.Root, "trash")); len(got) != 0 {
		t.Errorf("the trash holds %v", got)
	}
	checkStore(t, s)
	checkImages(t, s, l.library)
}

// Every step fails, once and always: the store is in order and goes on when they don't.
func TestErrorAtEveryPoint(t *testing.T) {
	store := exported(t, 0, crashLayer)
	l := newCrashLibrary(t)
	for _, p := range failpoint.Points() {
		t.Run(string(p), func(t *testing.T) {
			for _, action := range []string{"error@1", "error@2", "error"} {
				s := open(t, crashConfig(filepath.Join(testutil.Tmpfs(t), "root"), store))
				s.UseUnpacker(l)
				failpoint.Reset()
				if err := failpoint.Set(p, action); err != nil {
					t.Fatal(err)
				}
				for _, step := range l.steps(t, s) {
					if err := step(); err != nil {
						t.Logf("%s: %v", action, err)
					}
				}
				failpoint.Reset()
				if p == failpoint.LayerDropWork { // what that leaves, the next start removes
					s = reopen(t, s)
				}
				inOrder(t, s, l)
				emptyOut(t, s)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				runSequence(t, s.cfg, l)
			}
		})
	}
}

// runSequence does everything that there are failpoints in, from whatever is in the root
// to a root without layers.
func runSequence(t *testing.T, cfg Config, l crashLibrary) {
	t.Helper()
	s := restart(t, cfg, l)
	emptyOut(t, s)
	for i, step := range l.steps(t, s) {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	inOrder(t, s, l)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = restart(t, cfg, l)
	inOrder(t, s, l)
	emptyOut(t, s)
	for _, dir := range []string{"layers", "snapshots", "staging", "trash", "external"} {
		if got := list(t, filepath.Join(cfg.Root, dir)); len(got) != 0 {
			t.Errorf("%s holds %v of nobody", dir, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func restart(t *testing.T, cfg Config, l crashLibrary) *Snapshotter {
	t.Helper()
	fscktest.AtEnd(t, cfg.Root)
	s, err := New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.UseUnpacker(l)
	return s
}

// crashLibrary has layers, too, of which one is another directory on each base.
type crashLibrary struct {
	library
	onDir, onLink, top pulled
}

func newCrashLibrary(t *testing.T) crashLibrary {
	t.Helper()
	l := crashLibrary{library: newLibrary(t)}
	l.onDir.desc = l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "lib/"})
	l.onLink.desc = l.add(t, tar.Header{Typeflag: tar.TypeDir, Name: "usr/"}, tar.Header{Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr"})
	l.top.desc = l.add(t, file("lib/x"))
	return l
}

// steps take about a second at most, and come to every point but those of the recovery.
func (l crashLibrary) steps(t *testing.T, s *Snapshotter) []func() error {
	image := func(how way, image ...int) func() error {
		return func() error { _, err := l.pull(t, s, image, how); return err }
	}
	return []func() error{
		image(plain1, 0, 7, 2), image(staged, 1, 7, 2), image(diffIDs, 1, 7, 4), image(blobs, 7, 0), image(late, 0, 7, 3),
		image(diffIDs, 0, crashLayer), image(staged, 0, crashLayer),
		func() error { return l.promoted(t, s, "a", "b") },
		func() error { return l.adoptedAtCommit(t, s) },
		func() error { return l.unstaged(t, s) },
		func() error { return l.restaged(s) },
		func() error { return l.container(s) },
	}
}

func (l crashLibrary) start(t *testing.T, s *Snapshotter, name string, p pulled) error {
	m, err := s.Prepare(ctx, "default/999/extract-"+name, "")
	if err == nil {
		err = l.apply(t, s, m, p.desc)
	}
	return err
}

func (l crashLibrary) end(s *Snapshotter, name, parent string) error {
	return s.Commit(ctx, name, "default/999/extract-"+name, snapshots.WithParent(parent))
}

// promoted extracts the same layer for two before either commits.
func (l crashLibrary) promoted(t *testing.T, s *Snapshotter, a, b string) error {
	p := pulled{desc: l.descs[6]}
	for _, name := range []string{a, b} {
		if err := l.start(t, s, name, p); err != nil {
			return err
		}
	}
	return errors.Join(l.end(s, a, ""), l.end(s, b, a))
}

// adoptedAtCommit extracts a layer that is here from a blob that nobody has seen.
func (l crashLibrary) adoptedAtCommit(t *testing.T, s *Snapshotter) error {
	n, err := s.meta.Reserve(ctx)
	if err != nil {
		return err
	}
	p := pulled{desc: l.descs[7]}
	p.desc.Digest = digest.FromString(fmt.Sprint("packed once more", n))
	l.layers[p.desc.Digest] = l.layers[l.descs[7].Digest]
	if err := l.start(t, s, "adopted", p); err != nil {
		return err
	}
	return l.end(s, "adopted", "")
}

// unstaged has a layer that is here, and finds at Commit that it can't be used.
func (l crashLibrary) unstaged(t *testing.T, s *Snapshotter) error {
	for _, todo := range []struct {
		name, parent string
		pulled
	}{{"dir", "", l.onDir}, {"dir-top", "dir", l.top}, {"link", "", l.onLink}, {"link-top", "link", l.top}} {
		if err := l.start(t, s, todo.name, todo.pulled); err != nil {
			return err
		}
		if err := l.end(s, todo.name, todo.parent); err != nil {
			return err
		}
	}
	return nil
}

// restaged has a layer that is here without its blob, and finds at Commit that it can't be
// used as it is.
func (l crashLibrary) restaged(s *Snapshotter) error {
	opt := labels(snapshots.LabelSnapshotRef, "restaged", snapshots.LabelSnapshotDiffID, l.top.desc.Digest.String(), parentLabel, "parent")
	m, err := s.Prepare(ctx, "default/999/extract-restaged", "", opt)
	if err == nil && !m[0].ReadOnly() {
		err = fmt.Errorf("it is not staged: %v", m)
	}
	if err != nil {
		return err
	}
	return s.Commit(ctx, "restaged", "default/999/extract-restaged", snapshots.WithParent("link"))
}

// container is what a container does to a snapshot, and its commit.
func (l crashLibrary) container(s *Snapshotter) error {
	if _, err := s.Prepare(ctx, "container", ""); err != nil {
		return err
	}
	sn, err := s.get("container")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.store.UpperPath(sn.Number), "f"), []byte("f"), 0o644); err != nil {
		return err
	}
	if err := s.Commit(ctx, "committed", "container"); err != nil {
		return err
	}
	if _, err = s.Prepare(ctx, "next", "committed"); err != nil {
		return err
	}
	return errors.Join(s.Remove(ctx, "next"), s.Remove(ctx, "committed"))
}
