// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// reopen opens the root of a snapshotter that was closed, as a restart does.
func reopen(t *testing.T, s *Snapshotter) *Snapshotter {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, s.cfg)
}

func TestRestart(t *testing.T) {
	s := open(t, Config{})
	commitLayer(t, s, "base", "")
	first := prepare(t, s, "active", "base", labels("a", "b"))
	write(t, filepath.Join(upper(t, s, "active"), "mine"), "data")
	s = reopen(t, s)
	again, err := s.Mounts(ctx, "active")
	if err != nil || fmt.Sprint(first) != fmt.Sprint(again) {
		t.Errorf("mounts %v, then %v (%v)", first, again, err)
	}
	info, err := s.Stat(ctx, "active")
	if err != nil || info.Labels["a"] != "b" || info.Parent != "base" {
		t.Errorf("%+v, %v", info, err)
	}
	mounted(t, again, func(dir string) {
		if got := list(t, dir); !slices.Equal(got, []string{"base", "mine"}) {
			t.Errorf("shows %v", got)
		}
	})
}

// What a crash left of files that were being written goes with the next start; what
// containers wrote stays.
func TestInterruptedFiles(t *testing.T) {
	s := open(t, Config{})
	prepare(t, s, "active", "")
	mine := filepath.Join(upper(t, s, "active"), "mine.tmp")
	dir := filepath.Dir(filepath.Dir(mine))
	write(t, mine, "mine")
	cut := []string{filepath.Join(dir, "layer.json.tmp"), filepath.Join(dir, "seal.json.tmp"), filepath.Join(s.cfg.Root, "external", "7.tmp")}
	for _, path := range cut {
		write(t, path, "half of i")
	}
	theirs := filepath.Join(s.cfg.Root, "external", "of-somebody.tmp")
	write(t, theirs, "theirs")
	s = reopen(t, s)
	cut = append(cut, theirs)
	if err := os.Remove(theirs); err != nil {
		t.Error(err)
	}
	for _, path := range cut {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", path, err)
		}
	}
	if data, err := os.ReadFile(mine); err != nil || string(data) != "mine" {
		t.Errorf("a container's file: %q, %v", data, err)
	}
	mustRemove(t, s, "active")
}

func TestSecondOpenIsRefused(t *testing.T) {
	s := open(t, Config{})
	_, err := New(ctx, Config{Root: s.cfg.Root})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("got %v", err)
	}
}

// A crash at each step leaves the call done or not done.
func TestCrashInTheMiddle(t *testing.T) {
	for name, crash := range map[string]struct {
		do    func(t *testing.T, s *Snapshotter)
		check func(t *testing.T, s *Snapshotter)
	}{
		"prepare, before the transaction": {
			func(t *testing.T, s *Snapshotter) {
				n, err := s.meta.Reserve(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.store.MakeSnapshot(n, layerstore.DefaultAttrs()); err != nil {
					t.Fatal(err)
				}
			},
			func(t *testing.T, s *Snapshotter) {
				prepare(t, s, "new", "base")
			},
		},
		"commit, before the transaction": {
			func(t *testing.T, s *Snapshotter) {
				sn, err := s.get("active")
				if err != nil {
					t.Fatal(err)
				}
				if err := s.store.Publish(sn.Number, layerstore.Content{}); err != nil {
					t.Fatal(err)
				}
			},
			func(t *testing.T, s *Snapshotter) {
				if _, err := os.Stat(filepath.Join(upper(t, s, "active"), "mine")); err != nil {
					t.Errorf("what the container wrote is gone: %v", err)
				}
				mustCommit(t, s, "committed", "active")
			},
		},
		"remove, before the rename": {
			func(t *testing.T, s *Snapshotter) {
				err := s.meta.Update(ctx, func(tx *metadata.Tx) error { _, err := tx.Remove("active"); return err })
				if err != nil {
					t.Fatal(err)
				}
			},
			func(t *testing.T, s *Snapshotter) {
				if got := list(t, filepath.Join(s.cfg.Root, "snapshots")); len(got) != 0 {
					t.Errorf("snapshots holds %v", got)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			commitLayer(t, s, "base", "")
			prepare(t, s, "active", "base")
			write(t, filepath.Join(upper(t, s, "active"), "mine"), "data")
			crash.do(t, s)
			s = reopen(t, s)
			checkStore(t, s)
			crash.check(t, s)
		})
	}
}

// The directory of an active snapshot that somebody deleted: it can be removed,
// and nothing else.
func TestMissingDirectory(t *testing.T) {
	s := open(t, Config{})
	prepare(t, s, "active", "")
	if err := os.RemoveAll(filepath.Dir(upper(t, s, "active"))); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	if _, err := s.Mounts(ctx, "active"); !errdefs.IsUnavailable(err) {
		t.Errorf("mounts: %v", err)
	}
	if err := s.Commit(ctx, "c", "active"); !errdefs.IsUnavailable(err) {
		t.Errorf("commit: %v", err)
	}
	mustRemove(t, s, "active")
}

func TestRemoval(t *testing.T) {
	for name, cfg := range map[string]Config{"async": {}, "sync": {SyncRemove: true}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, cfg)
			commitLayer(t, s, "base", "")
			prepare(t, s, "active", "base")
			mustRemove(t, s, "active", "base")
			if !cfg.SyncRemove {
				if err := s.Cleanup(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if got := everything(t, s); len(got) != 0 {
				t.Errorf("left: %v", got)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	s := open(t, Config{})
	prepare(t, s, "a", "")
	write(t, filepath.Join(upper(t, s, "a"), "f"), strings.Repeat("x", 100_000))
	active, err := s.Usage(ctx, "a")
	if err != nil || active.Inodes != 2 || active.Size < 100_000 {
		t.Errorf("active: %+v, %v", active, err)
	}
	mustCommit(t, s, "c", "a")
	if committed, err := s.Usage(ctx, "c"); err != nil || committed != active {
		t.Errorf("committed: %+v, %v; active it was %+v", committed, err, active)
	}
	if _, err := s.View(ctx, "v", "c"); err != nil {
		t.Fatal(err)
	}
	if view, err := s.Usage(ctx, "v"); err != nil || view != (snapshots.Usage{}) {
		t.Errorf("view: %+v, %v", view, err)
	}
}

func TestUpperdirLabel(t *testing.T) {
	s := open(t, Config{UpperdirLabel: true})
	commitLayer(t, s, "c", "")
	prepare(t, s, "a", "c")
	if _, err := s.View(ctx, "v", "c"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"c": upper(t, s, "c"), "a": upper(t, s, "a"), "v": ""}
	err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if got := info.Labels[upperdirLabel]; got != want[info.Name] {
			t.Errorf("%s: %q, want %q", info.Name, got, want[info.Name])
		}
		stat, err := s.Stat(ctx, info.Name)
		if err != nil || stat.Labels[upperdirLabel] != want[info.Name] {
			t.Errorf("stat %s: %v, %v", info.Name, stat.Labels, err)
		}
		updated, err := s.Update(ctx, stat) // with the label, as a client would
		if err != nil || updated.Labels[upperdirLabel] != want[info.Name] {
			t.Errorf("update %s: %v, %v", info.Name, updated.Labels, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if sn, err := s.get("a"); err != nil || len(sn.Labels) != 0 {
		t.Errorf("the label was stored: %v, %v", sn.Labels, err)
	}
}

// Many clients at once on few names: whatever comes of it, the store is in order
// at any time and after a restart.
func TestConcurrentCalls(t *testing.T) {
	testutil.RequireRoot(t)
	s := open(t, Config{Durability: DurabilityNone})
	var wg sync.WaitGroup
	for i := range 8 {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		wg.Go(func() {
			for range 150 {
				randomCall(t, s, r)
			}
		})
	}
	wg.Wait()
	checkStore(t, s)
	s = reopen(t, s)
	checkStore(t, s)
	for range 10 { // children first, in as many rounds as chains are long
		err := s.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
			if err := s.Remove(ctx, info.Name); err != nil && !errdefs.IsFailedPrecondition(err) {
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Cleanup(ctx); err != nil {
		t.Fatal(err)
	}
	if got := everything(t, s); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func randomCall(t *testing.T, s *Snapshotter, r *rand.Rand) {
	name := func() string { return string(rune('a' + r.IntN(6))) }
	parent := func() string {
		if r.IntN(2) == 0 {
			return ""
		}
		return name()
	}
	var err error
	switch r.IntN(8) {
	case 0, 1:
		_, err = s.Prepare(ctx, name(), parent())
	case 2:
		_, err = s.View(ctx, name(), parent())
	case 3, 4:
		err = s.Commit(ctx, name(), name(), snapshots.WithParent(parent()))
	case 5:
		err = s.Remove(ctx, name())
	case 6:
		_, err = s.Mounts(ctx, name())
	case 7:
		err = s.Cleanup(ctx)
	}
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsAlreadyExists(err) && !errdefs.IsFailedPrecondition(err) &&
		!errdefs.IsInvalidArgument(err) && !errdefs.IsUnavailable(err) {
		t.Errorf("unexpected: %v", err)
	}
}
