// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/faultfs"
	"github.com/strata-snapshotter/strata/internal/step"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// hung is a service with a client, that logs calls soon.
type hung struct {
	t    *testing.T
	sn   snapshots.Snapshotter
	slow chan string // the steps that the watchdog logs
	*Service
}

// serveHung serves root. At the end the root is closed and looked over.
func serveHung(t *testing.T, root string, stores ...string) *hung {
	t.Helper()
	cfg := config.Default()
	cfg.Root, cfg.Address = root, filepath.Join(publicDir(t), "s.sock")
	cfg.Snapshotter.AdditionalStores = stores
	s, err := New(t.Context(), cfg)
	must(t, err)
	s.calls.limits.slowAfter, s.calls.limits.leaveAfter = 20*time.Millisecond, 10*time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	h := &hung{t: t, Service: s, slow: make(chan string, 1000)}
	hooks := log.L.Logger.ReplaceHooks(logrus.LevelHooks{logrus.WarnLevel: {h}})
	t.Cleanup(func() {
		cancel()
		must(t, <-served)
		must(t, s.Close())
		log.L.Logger.ReplaceHooks(hooks)
		report, err := fsck.Check(context.Background(), fsck.Options{Root: root})
		must(t, err)
		for _, f := range report.Findings {
			if f.Severity == fsck.Damage {
				t.Errorf("fsck: %+v", f)
			}
		}
	})
	h.sn = proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(dial(t, cfg.Address)), "strata")
	return h
}

// Levels and Fire are a hook of the log.
func (h *hung) Levels() []logrus.Level { return []logrus.Level{logrus.WarnLevel} }

func (h *hung) Fire(e *logrus.Entry) error {
	if what, ok := e.Data["step"].(string); ok {
		select {
		case h.slow <- what:
		default:
		}
	}
	return nil
}

// logged waits until the watchdog logs a call in a step.
func (h *hung) logged(step string) {
	h.t.Helper()
	for what := range h.slow {
		if strings.HasPrefix(what, step) {
			return
		}
	}
}

// leftAlone waits until so many calls go on without a caller.
func (h *hung) leftAlone(want int) {
	h.t.Helper()
	for range 3000 {
		h.calls.mu.Lock()
		got := len(h.calls.left)
		h.calls.mu.Unlock()
		if got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatalf("there are never %d calls without a caller", want)
}

// prepareUntil prepares a snapshot, and gives up when logged has seen it in a step.
func (h *hung) prepareUntil(step, key string, opts ...snapshots.Opt) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := h.sn.Prepare(ctx, key, "", opts...)
		done <- err
	}()
	h.logged(step)
	cancel()
	if err := <-done; !errdefs.IsCanceled(err) {
		h.t.Errorf("got %v", err)
	}
}

// others are calls that need nothing of what hangs.
func (h *hung) others() {
	h.t.Helper()
	if _, err := h.sn.Stat(h.t.Context(), "base"); err != nil {
		h.t.Error(err)
	}
	if _, err := h.sn.Mounts(h.t.Context(), "container"); err != nil {
		h.t.Error(err)
	}
	if err := h.sn.Walk(h.t.Context(), func(context.Context, snapshots.Info) error { return nil }); err != nil {
		h.t.Error(err)
	}
}

func (h *hung) fill() {
	h.t.Helper()
	for _, err := range []error{
		func() error { _, err := h.sn.Prepare(h.t.Context(), "base-active", ""); return err }(),
		h.sn.Commit(h.t.Context(), "base", "base-active"),
		func() error { _, err := h.sn.Prepare(h.t.Context(), "container", "base"); return err }(),
	} {
		must(h.t, err)
	}
}

// The root's file system hangs: calls that write to it end when their context does, those
// that only read work, and when it goes on everything is in order.
func TestRootHangs(t *testing.T) {
	testutil.RequireRoot(t)
	dir := testutil.LoopFSInMemory(t, "ext4", 64, "-q")
	h := serveHung(t, filepath.Join(dir, "root"))
	h.fill()
	thaw := freeze(t, dir)
	h.prepareUntil(step.Directories, "k")
	h.leftAlone(1)
	ctx, cancel := context.WithCancel(t.Context())
	removed := make(chan error, 1)
	go func() { removed <- h.sn.Remove(ctx, "container") }()
	h.logged(step.Transaction)
	cancel()
	if err := <-removed; !errdefs.IsCanceled(err) {
		t.Errorf("Remove: %v", err)
	}
	h.leftAlone(2)
	if _, err := h.sn.Stat(t.Context(), "base"); err != nil {
		t.Error(err)
	}
	thaw()
	must(t, h.calls.wait(time.Minute))
	// Both came to their end without their callers: one noticed that in time, the other was
	// in the middle of its transaction.
	for _, key := range []string{"k", "container"} {
		if _, err := h.sn.Stat(t.Context(), key); !errdefs.IsNotFound(err) {
			t.Errorf("snapshot %q: %v", key, err)
		}
	}
	if _, err := h.sn.Prepare(t.Context(), "container", "base"); err != nil {
		t.Error(err)
	}
	h.others()
}

// freeze makes whoever writes to the file system at dir hang.
func freeze(t *testing.T, dir string) (thaw func()) {
	t.Helper()
	const fifreeze, fithaw = 0xc0045877, 0xc0045878 // linux/fs.h
	f, err := os.Open(dir)
	must(t, err)
	frozen := true
	thaw = func() {
		if frozen {
			must(t, unix.IoctlSetInt(int(f.Fd()), fithaw, 0))
			must(t, f.Close())
		}
		frozen = false
	}
	must(t, unix.IoctlSetInt(int(f.Fd()), fifreeze, 0))
	t.Cleanup(thaw)
	return thaw
}

// An additional store hangs, as one on a network does: only calls that look into it do.
func TestStoreHangs(t *testing.T) {
	testutil.RequireRoot(t)
	store := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(store, "layers"), 0o755))
	faults := faultfs.New(t, store)
	h := serveHung(t, filepath.Join(testutil.Tmpfs(t), "root"), faults.Dir())
	h.fill()
	faults.Set(faultfs.Rule{Ops: []string{faultfs.Lookup, faultfs.Open, faultfs.OpenDir, faultfs.ReadDir}, First: 1})
	wanted := digest.FromString("a layer").String()
	h.prepareUntil(step.Stores, "extract-1 x", snapshots.WithLabels(map[string]string{
		snapshots.LabelSnapshotRef: wanted, snapshots.LabelSnapshotDiffID: wanted,
	}))
	h.leftAlone(1)
	h.others()
	if _, err := h.sn.Prepare(t.Context(), "more", "base"); err != nil {
		t.Error(err)
	}
	faults.Set(faultfs.Rule{})
	must(t, h.calls.wait(time.Minute))
	if _, err := h.sn.Stat(t.Context(), "extract-1 x"); !errdefs.IsNotFound(err) {
		t.Errorf("a snapshot that nobody waited for: %v", err)
	}
}
