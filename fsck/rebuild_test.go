// SPDX-License-Identifier: Apache-2.0

package fsck_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"pgregory.net/rapid"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/snapshotter"
)

func agree(*fsck.Rebuilt) bool  { return true }
func refuse(*fsck.Rebuilt) bool { return false }

// known is what a snapshotter says of a snapshot, and where it is.
type known struct {
	info   snapshots.Info
	usage  snapshots.Usage
	mounts string
}

// describe is all that a snapshotter says.
func describe(s *snapshotter.Snapshotter) (map[string]known, error) {
	all := map[string]known{}
	err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		k := known{info: info}
		var err error
		if k.usage, err = s.Usage(ctx, info.Name); err != nil && !errdefs.IsUnavailable(err) {
			return err
		}
		if info.Kind != snapshots.KindCommitted {
			mounts, err := s.Mounts(ctx, info.Name)
			if err != nil && !errdefs.IsUnavailable(err) {
				return err
			}
			k.mounts = fmt.Sprint(mounts)
		}
		all[info.Name] = k
		return nil
	})
	return all, err
}

func randomConfig(root string) snapshotter.Config {
	return snapshotter.Config{Root: root, Durability: snapshotter.DurabilityNone, Staging: func(context.Context) bool { return true }}
}

// damages of metadata.db that leave nothing to go on with, each by its name.
func loseDatabase(rt *rapid.T, path string) string {
	how := rapid.SampledFrom([]string{"removed", "truncated", "emptied", "overwritten", "root pages"}).Draw(rt, "damage")
	switch how {
	case "removed":
		rtMust(rt, os.Remove(path))
	case "emptied":
		rtMust(rt, os.Truncate(path, 0))
	case "truncated":
		rtMust(rt, os.Truncate(path, rapid.Int64Range(1, 9000).Draw(rt, "size")))
	case "overwritten", "root pages":
		b, err := os.ReadFile(path)
		rtMust(rt, err)
		part := b[rapid.IntRange(0, 1).Draw(rt, "meta")*os.Getpagesize():][:os.Getpagesize()]
		if how == "overwritten" {
			part = b
		}
		r := rand.New(rand.NewPCG(uint64(len(part)), 1))
		for i := range part {
			part[i] = byte(r.Uint32())
		}
		rtMust(rt, os.WriteFile(path, b, 0o600))
	}
	return how
}

func rtMust(rt *rapid.T, errs ...error) {
	rt.Helper()
	if err := errors.Join(errs...); err != nil {
		rt.Fatal(err)
	}
}

// After random calls metadata.db is lost: the next start refuses the root with the command
// that helps, and that brings everything back, and touches nobody's files.
func TestRebuildBringsEverythingBack(t *testing.T) {
	testutil.RequireRoot(t)
	dir, made, layers := testutil.Tmpfs(t), 0, blobs(t)
	rapid.Check(t, func(rt *rapid.T) {
		made++
		root := filepath.Join(dir, fmt.Sprint(made))
		s, err := snapshotter.New(ctx, randomConfig(root))
		rtMust(rt, err)
		randomCalls(rt, s, layers, 0, rapid.IntRange(1, 30).Draw(rt, "calls"))
		before, err := describe(s)
		rtMust(rt, err, s.Cleanup(ctx), s.Close())
		files := filesOf(t, root)
		how := loseDatabase(rt, filepath.Join(root, "metadata.db"))
		if s, err := snapshotter.New(ctx, randomConfig(root)); err == nil && len(before) == 0 {
			rtMust(rt, s.Close())
			return // nothing was lost
		} else if !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "containerd-strata-grpc fsck --rebuild --root "+root) {
			rt.Fatalf("%s: %v", how, err)
		}
		r, err := fsck.Rebuild(ctx, fsck.Options{Root: root}, agree)
		rtMust(rt, err)
		for _, f := range r.Findings {
			if f.Severity != fsck.Hint {
				rt.Errorf("after the rebuild: %+v", f)
			}
		}
		if len(r.Rebuilt.Lost) > 0 || (r.Rebuilt.Aside == "") != (how == "removed") {
			rt.Errorf("%+v", r.Rebuilt)
		}
		s, err = snapshotter.New(ctx, randomConfig(root))
		rtMust(rt, err)
		after, err := describe(s)
		rtMust(rt, err, s.Cleanup(ctx))
		if !reflect.DeepEqual(before, after) {
			rt.Errorf("there was %+v\nand there is %+v", before, after)
		}
		if now := filesOf(t, root); !maps.Equal(files, now) {
			rt.Errorf("files were %v and are %v", files, now)
		}
		randomCalls(rt, s, layers, 1000, 5)
		rtMust(rt, s.Cleanup(ctx), s.Close())
		cleanButAside(rt, root)
	})
}

// filesOf is what is in layers and snapshots.
func filesOf(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for path, text := range dump(t, root) {
		rel := strings.TrimPrefix(path, root+"/")
		if strings.HasPrefix(rel, "layers/") || strings.HasPrefix(rel, "snapshots/") {
			all[rel] = text
		}
	}
	return all
}

func cleanButAside(t interface {
	Fatal(...any)
	Errorf(string, ...any)
}, root string) {
	r, err := fsck.Check(ctx, fsck.Options{Root: root, Usage: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Code != fsck.CodeDamagedDatabase {
			t.Errorf("%s: %s", f.Code, f.Message)
		}
	}
}

func randomCalls(rt *rapid.T, s *snapshotter.Snapshotter, layers [][]byte, made, count int) {
	c := &client{rt: rt, s: s, blobs: layers, made: made}
	calls := map[string]func(){"prepare": c.prepare, "view": c.view, "unpack": c.unpack, "commit": c.commit, "remove": c.remove}
	for range count {
		calls[rapid.SampledFrom([]string{"prepare", "view", "unpack", "unpack", "commit", "commit", "remove"}).Draw(rt, "call")]()
	}
}

// What can be read is not rebuilt; without a log nothing is, and a plan changes nothing.
func TestRebuildRefuses(t *testing.T) {
	f := newFixture(t)
	before := dump(t, f.root)
	if _, err := fsck.Rebuild(ctx, fsck.Options{Root: f.root}, agree); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a sound root: %v", err)
	}
	sameDump(t, before, dump(t, f.root))

	f.must(os.Truncate(filepath.Join(f.root, "metadata.db"), 5000))
	before = dump(t, f.root)
	r, err := fsck.Rebuild(ctx, fsck.Options{Root: f.root}, refuse)
	f.must(err)
	if r.Rebuilt.Committed != 4 || r.Rebuilt.Active != 2 || r.Rebuilt.Views != 1 || r.Rebuilt.Layers != 4 {
		t.Errorf("%+v", r.Rebuilt)
	}
	sameDump(t, before, dump(t, f.root))

	f.must(os.Remove(filepath.Join(f.root, "metadata.log")))
	before = dump(t, f.root)
	if _, err := fsck.Rebuild(ctx, fsck.Options{Root: f.root}, agree); !errdefs.IsDataLoss(err) {
		t.Errorf("without a log: %v", err)
	}
	sameDump(t, before, dump(t, f.root))
}

// Of a log that is not complete comes what is in it, and what nothing names any more is
// kept where nobody removes it.
func TestRebuildOfAnIncompleteLog(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(f.root, "metadata.log")
	b, err := os.ReadFile(path)
	f.must(err)
	at := bytes.Index(b, []byte("work")) // in the frame that made the snapshot
	b[at] ^= 1
	f.must(os.WriteFile(path, b, 0o600), os.Remove(filepath.Join(f.root, "metadata.db")))
	r, err := fsck.Rebuild(ctx, fsck.Options{Root: f.root}, agree)
	f.must(err)
	if len(r.Rebuilt.Lost) == 0 || len(r.Rebuilt.Kept) != 1 || r.Rebuilt.Active != 1 {
		t.Fatalf("%+v", r.Rebuilt)
	}
	kept := filepath.Join(f.root, "kept", fmt.Sprintf("snapshots-%d", f.work))
	if text, err := os.ReadFile(filepath.Join(kept, "fs/work")); err != nil || string(text) != "work" || r.Rebuilt.Kept[0] != kept {
		t.Errorf("%q, %v, %v", text, err, r.Rebuilt.Kept)
	}
	s, err := snapshotter.New(ctx, snapshotter.Config{Root: f.root, AdditionalStores: []string{f.store}})
	f.must(err)
	f.must(s.Cleanup(ctx), s.Close())
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	wantCodes(t, "afterwards", checkWith(t, fsck.Options{Root: f.root, Usage: true}), []string{"kept"})
}

// Records that can't be read are taken from the log, too.
func TestRebuildOfUnreadableRecords(t *testing.T) {
	f := newFixture(t)
	b, err := os.ReadFile(filepath.Join(f.root, "metadata.db"))
	f.must(err)
	// The byte before the label says how long it is: in every version of the record.
	for at := 0; at >= 0; at = bytes.Index(b, []byte("ref-of-base")) {
		if at > 0 {
			b[at-1], b[at] = 0xff, 'R'
		}
	}
	f.must(os.WriteFile(filepath.Join(f.root, "metadata.db"), b, 0o600))
	if c := f.contents(); !c.Incomplete {
		t.Fatal("the record can be read")
	}
	if _, err := snapshotter.New(ctx, snapshotter.Config{Root: f.root}); !errdefs.IsDataLoss(err) || !strings.Contains(err.Error(), "fsck --rebuild") {
		t.Errorf("start: %v", err)
	}
	r, err := fsck.Rebuild(ctx, fsck.Options{Root: f.root}, agree)
	f.must(err)
	wantCodes(t, "rebuild", r, []string{"db-damaged-copy"})
	if c := f.contents(); c.Snapshots[f.base].Labels[snapshots.LabelSnapshotRef] != "ref-of-base" {
		t.Errorf("%+v", c.Snapshots[f.base])
	}
}
