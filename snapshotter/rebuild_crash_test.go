// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package snapshotter

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

const rebuildRoot = "STRATA_REBUILD_ROOT"

func agree(*fsck.Rebuilt) bool { return true }

// TestRebuildChild is the process that is killed, or fails.
func TestRebuildChild(t *testing.T) {
	root := os.Getenv(rebuildRoot)
	if root == "" {
		t.Skip("is run by TestCrashOrErrorInARebuild")
	}
	if _, err := fsck.Rebuild(ctx, fsck.Options{Root: root}, agree); err != nil {
		t.Fatal(err)
	}
}

// A rebuild that fails or is killed at any step can be done again, and brings everything
// back; until it is done the root is refused.
func TestCrashOrErrorInARebuild(t *testing.T) {
	for _, p := range failpoint.RebuildPoints() {
		for _, action := range []string{"crash", "error"} {
			t.Run(string(p)+" "+action, func(t *testing.T) { stopRebuildAt(t, p, action) })
		}
	}
}

func stopRebuildAt(t *testing.T, p failpoint.Point, action string) {
	s := open(t, Config{Root: filepath.Join(testutil.Tmpfs(t), "root")})
	root := s.cfg.Root
	fscktest.Damaged(root, fsck.CodeDamagedDatabase, fsck.CodeKept)
	commitLayer(t, s, "base", "")
	prepare(t, s, "work", "base")
	write(t, filepath.Join(upper(t, s, "work"), "file"), "of a container")
	prepare(t, s, "last", "base")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(root, "metadata.db"), 6000); err != nil {
		t.Fatal(err)
	}
	lost := p == failpoint.RebuildKeep // only comes where something is lost
	if lost {
		cutLog(t, root)
	}
	runRebuild(t, root, p, action)
	if p != failpoint.RebuildPlaced {
		if _, err := New(ctx, Config{Root: root}); err == nil {
			t.Fatal("a root in the middle of a rebuild is used")
		}
		r, err := fsck.Rebuild(ctx, fsck.Options{Root: root}, agree)
		if err != nil || r.Worst() == fsck.Damage {
			t.Fatalf("%v, %+v", err, r)
		}
	}
	s = open(t, Config{Root: root})
	for _, key := range []string{"base", "work", "last"} {
		if _, err := s.Stat(ctx, key); err != nil && !(lost && key == "last") {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(upper(t, s, "work"), "file")); err != nil || string(b) != "of a container" {
		t.Errorf("%q, %v", b, err)
	}
	if aside, _ := filepath.Glob(filepath.Join(root, "metadata.db.damaged-*")); len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
	if kept := len(list(t, root)) > 0 && lost; kept && len(list(t, filepath.Join(root, "kept"))) != 1 {
		t.Error("nothing was kept")
	}
}

// cutLog damages the last record in metadata.log that has a name.
func cutLog(t *testing.T, root string) {
	t.Helper()
	path := filepath.Join(root, "metadata.log")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(b) - 4; i > 0; i-- {
		if string(b[i:i+4]) == "last" {
			b[i] ^= 1
			break
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func runRebuild(t *testing.T, root string, p failpoint.Point, action string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestRebuildChild$")
	cmd.Env = append(os.Environ(), rebuildRoot+"="+root, fmt.Sprintf("%s=%s=%s", failpoint.Environment, p, action))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit): // killed, or failed
	case err == nil && p == failpoint.RebuildPlaced && action == "error": // which can't fail any more
	default:
		t.Fatalf("it was not stopped: %v, %s", err, out)
	}
}
