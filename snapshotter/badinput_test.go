// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

const (
	uidLabel = snapshots.LabelSnapshotUIDMapping
	gidLabel = snapshots.LabelSnapshotGIDMapping
)

func TestBadInput(t *testing.T) {
	big := labels("big", strings.Repeat("v", 4096))
	prep := func(key, parent string, opts ...snapshots.Opt) func(*Snapshotter) error {
		return func(s *Snapshotter) error { _, err := s.Prepare(ctx, key, parent, opts...); return err }
	}
	view := func(key, parent string, opts ...snapshots.Opt) func(*Snapshotter) error {
		return func(s *Snapshotter) error { _, err := s.View(ctx, key, parent, opts...); return err }
	}
	commit := func(name, key string, opts ...snapshots.Opt) func(*Snapshotter) error {
		return func(s *Snapshotter) error { return s.Commit(ctx, name, key, opts...) }
	}
	for name, tc := range map[string]struct {
		call func(*Snapshotter) error
		want func(error) bool
		says string
	}{
		"prepare on unknown":      {prep("new", "nobody"), errdefs.IsNotFound, `"nobody"`},
		"prepare on active":       {prep("new", "active"), errdefs.IsInvalidArgument, `"active"`},
		"prepare on view":         {prep("new", "view"), errdefs.IsInvalidArgument, `"view"`},
		"prepare taken":           {prep("active", ""), errdefs.IsAlreadyExists, `"active"`},
		"prepare taken by commit": {prep("base", ""), errdefs.IsAlreadyExists, `"base"`},
		"prepare without a key":   {prep("", ""), errdefs.IsInvalidArgument, "name"},
		"prepare long key":        {prep(strings.Repeat("k", 40000), ""), errdefs.IsInvalidArgument, "32768"},
		"prepare big label":       {prep("new", "", big), errdefs.IsInvalidArgument, "big"},
		"view on unknown":         {view("new", "nobody"), errdefs.IsNotFound, `"nobody"`},
		"view taken":              {view("view", "base"), errdefs.IsAlreadyExists, `"view"`},
		"view big label":          {view("new", "base", big), errdefs.IsInvalidArgument, "big"},
		"commit unknown":          {commit("new", "nobody"), errdefs.IsNotFound, `"nobody"`},
		"commit view":             {commit("new", "view"), errdefs.IsFailedPrecondition, `"view"`},
		"commit committed":        {commit("new", "base"), errdefs.IsFailedPrecondition, `"base"`},
		"commit taken":            {commit("base", "active"), errdefs.IsAlreadyExists, `"base"`},
		"commit without a name":   {commit("", "active"), errdefs.IsInvalidArgument, "name"},
		"commit unknown parent":   {commit("new", "alone", snapshots.WithParent("nobody")), errdefs.IsNotFound, `"nobody"`},
		"commit other parent":     {commit("new", "active", snapshots.WithParent("other")), errdefs.IsInvalidArgument, `"other"`},
		"commit parent is active": {commit("new", "alone", snapshots.WithParent("active")), errdefs.IsFailedPrecondition, `"active"`},
		"commit big label":        {commit("new", "active", big), errdefs.IsInvalidArgument, "big"},
		"remove unknown":          {func(s *Snapshotter) error { return s.Remove(ctx, "nobody") }, errdefs.IsNotFound, `"nobody"`},
		"remove parent":           {func(s *Snapshotter) error { return s.Remove(ctx, "base") }, errdefs.IsFailedPrecondition, "remove"},
		"stat unknown":            {func(s *Snapshotter) error { _, err := s.Stat(ctx, "nobody"); return err }, errdefs.IsNotFound, `"nobody"`},
		"mounts unknown":          {func(s *Snapshotter) error { _, err := s.Mounts(ctx, "nobody"); return err }, errdefs.IsNotFound, `"nobody"`},
		"mounts committed":        {func(s *Snapshotter) error { _, err := s.Mounts(ctx, "base"); return err }, errdefs.IsFailedPrecondition, `"base"`},
		"usage unknown":           {func(s *Snapshotter) error { _, err := s.Usage(ctx, "nobody"); return err }, errdefs.IsNotFound, `"nobody"`},
		"update unknown": {func(s *Snapshotter) error {
			_, err := s.Update(ctx, snapshots.Info{Name: "nobody"})
			return err
		}, errdefs.IsNotFound, `"nobody"`},
		"update kind": {func(s *Snapshotter) error {
			_, err := s.Update(ctx, snapshots.Info{Name: "active"}, "kind")
			return err
		}, errdefs.IsInvalidArgument, `"kind"`},
		"walk": {func(s *Snapshotter) error { return s.Walk(ctx, nil, "name==") }, errdefs.IsInvalidArgument, "filter"},
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, tc.call, tc.want, tc.says)
		})
	}
}

func TestBadIDMaps(t *testing.T) {
	const good = "0:1000:65536"
	for name, bad := range map[string]string{
		"more options":     "0:1000:65536,lowerdir=/etc",
		"trailing garbage": "0:1000:65536 ",
		"a word":           "root",
		"negative":         "-1:-1:-2",
		"no size":          "0:1000",
		"size 0":           "0:1000:0",
		"root not mapped":  "1:1000:65536",
		"overflow":         "0:4294967000:65536",
		"empty":            "",
		"overlapping":      "0:1000:10,5:5000:10",
	} {
		for _, pair := range [][2]string{{bad, good}, {good, bad}, {bad, bad}} {
			t.Run(name, func(t *testing.T) {
				opt := labels(uidLabel, pair[0], gidLabel, pair[1])
				refused(t, func(s *Snapshotter) error { _, err := s.Prepare(ctx, "new", "base", opt); return err }, errdefs.IsInvalidArgument, "new")
				refused(t, func(s *Snapshotter) error { _, err := s.View(ctx, "new", "base", opt); return err }, errdefs.IsInvalidArgument, "new")
			})
		}
	}
	t.Run("only one of the two", func(t *testing.T) {
		opt := labels(uidLabel, good)
		refused(t, func(s *Snapshotter) error { _, err := s.Prepare(ctx, "new", "base", opt); return err }, errdefs.IsInvalidArgument, gidLabel)
	})
}

// refused checks the class and message of an error, and that the call left the
// root as it was.
func refused(t *testing.T, call func(*Snapshotter) error, want func(error) bool, says string) {
	t.Helper()
	s := open(t, Config{Durability: DurabilityNone})
	commitLayer(t, s, "base", "")
	commitLayer(t, s, "other", "")
	prepare(t, s, "active", "base")
	prepare(t, s, "alone", "")
	if _, err := s.View(ctx, "view", "base"); err != nil {
		t.Fatal(err)
	}
	before := everything(t, s)
	err := call(s)
	if !want(err) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want it to say %q", err, says)
	}
	if err := s.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	if after := everything(t, s); !slices.Equal(before, after) {
		t.Errorf("a refused call changed\n%v to\n%v", before, after)
	}
}

// everything lists the directories of the root and what the metadata says.
func everything(t *testing.T, s *Snapshotter) []string {
	t.Helper()
	var all []string
	for _, dir := range []string{"layers", "snapshots", "staging", "trash", "empty"} {
		for _, name := range list(t, filepath.Join(s.cfg.Root, dir)) {
			all = append(all, dir+"/"+name)
		}
	}
	err := s.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		all = append(all, fmt.Sprint(info))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestRemovedRoot(t *testing.T) {
	s := open(t, Config{})
	commitLayer(t, s, "base", "")
	prepare(t, s, "active", "base")
	if err := os.RemoveAll(s.cfg.Root); err != nil {
		t.Fatal(err)
	}
	_, prepareErr := s.Prepare(ctx, "new", "base")
	_, mountsErr := s.Mounts(ctx, "active")
	_, usageErr := s.Usage(ctx, "active")
	for what, err := range map[string]error{
		"prepare": prepareErr, "mounts": mountsErr, "usage": usageErr, "commit": s.Commit(ctx, "new", "active"),
	} {
		if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), s.cfg.Root) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestRemovedLayer(t *testing.T) {
	s := open(t, Config{})
	commitLayer(t, s, "base", "")
	prepare(t, s, "active", "base")
	dir := filepath.Dir(upper(t, s, "base"))
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Mounts(ctx, "active"); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, Config{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, prepareErr := s.Prepare(ctx, "new", "")
	_, statErr := s.Stat(ctx, "new")
	for what, err := range map[string]error{"prepare": prepareErr, "stat": statErr, "remove": s.Remove(ctx, "new"), "commit": s.Commit(ctx, "b", "a")} {
		if !errdefs.IsUnavailable(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	for name, cfg := range map[string]Config{
		"no root":         {},
		"relative root":   {Root: "root"},
		"the root":        {Root: "/"},
		"bad durability":  {Root: root, Durability: "sometimes"},
		"bad id mapping":  {Root: root, IDMapping: "maybe"},
		"awkward aliases": {Root: root + ":x", AliasDir: root + ":y"},
	} {
		if s, err := New(ctx, cfg); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

func TestAliasInADirectoryOfOthers(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := New(ctx, Config{Root: filepath.Join(dir, "a:b"), AliasDir: open}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("got %v", err)
	}
}

// A full disk is ErrResourceExhausted, leaves nothing behind, and what fits once
// there is room again goes on as if nothing had been.
func TestFullDisk(t *testing.T) {
	testutil.RequireRoot(t)
	disk := testutil.LoopFS(t, "ext4", 24)
	root := filepath.Join(disk, "root")
	fscktest.AtEnd(t, root)
	s, err := New(ctx, Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	commitLayer(t, s, "base", "")
	prepare(t, s, "active", "base")
	ballast := filepath.Join(disk, "ballast")
	fillDisk(t, ballast)
	failures := map[string]error{}
	for i := range 300 {
		key := fmt.Sprint("k", i)
		if _, err := s.Prepare(ctx, key, "base", labels("l", strings.Repeat("x", 4000))); err != nil {
			failures[key] = err
		}
	}
	if len(failures) == 0 {
		t.Error("the disk was not full")
	}
	for key, err := range failures {
		if !errdefs.IsResourceExhausted(err) {
			t.Errorf("%s: %v", key, err)
		}
		if _, err := s.Stat(ctx, key); !errdefs.IsNotFound(err) {
			t.Errorf("%s failed and is there: %v", key, err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Cleanup(ctx); err != nil {
		t.Error(err)
	}
	checkStore(t, s)
	prepare(t, s, "afterwards", "base")
	mustCommit(t, s, "committed", "active")
	checkStore(t, s)
}

// fillDisk writes until there is no room for another byte.
func fillDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Logf("as full as it gets: %v", err)
	}
}
