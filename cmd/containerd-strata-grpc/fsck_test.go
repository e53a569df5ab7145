// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestFsck(t *testing.T) {
	testutil.RequireRoot(t)
	at := newPlace(t)
	fscktest.Damaged(at.root, fsck.CodeDirMode)
	check := func(want int, text string, options ...string) string {
		t.Helper()
		args := []string{"--config", os.DevNull, "--root", at.root, "fsck"}
		stdout, stderr, code := runCommand(t, append(args, options...)...)
		if code != want || !strings.Contains(stdout+stderr, text) {
			t.Errorf("%q: exit %d, want %d and %q; stdout %q, stderr %q", options, code, want, text, stdout, stderr)
		}
		return stdout
	}
	check(fsck.ExitNotChecked, "does not exist")
	p := startDaemon(t, at.args()...)
	check(fsck.ExitNotChecked, "is locked by process")
	p.stop(t, syscall.SIGTERM)
	check(fsck.ExitClean, ": clean")

	left := filepath.Join(at.root, "staging", "9")
	must(t, os.Mkdir(left, 0o700))
	check(fsck.ExitLeftovers, "staging-left")
	check(fsck.ExitLeftovers, "plan: move staging/9 to the trash", "--dry-run")
	check(fsck.ExitLeftovers, "plan: ", "--repair", "--dry-run")
	if _, err := os.Stat(left); err != nil {
		t.Errorf("a dry run did something: %v", err)
	}
	check(fsck.ExitRepaired, "repaired: staging-left", "--repair", "--usage")
	check(fsck.ExitClean, ": clean")

	must(t, os.Chmod(at.root, 0o755))
	var report fsck.Report
	must(t, json.Unmarshal([]byte(check(fsck.ExitDamage, "dir-mode", "--json")), &report))
	if len(report.Findings) != 1 || report.Findings[0].Code != fsck.CodeDirMode || len(report.Findings[0].Plan) == 0 {
		t.Errorf("%+v", report)
	}
	check(fsck.ExitUsage, "--help", "--content")
	check(fsck.ExitUsage, `"x"`, "x")
}

// A daemon says how to bring a lost metadata.db back, and what it says works.
func TestRebuildCommand(t *testing.T) {
	testutil.RequireRoot(t)
	at := newPlace(t)
	fscktest.Damaged(at.root, fsck.CodeDamagedDatabase, fsck.CodeKept)
	p := startDaemon(t, at.args()...)
	p.stop(t, syscall.SIGTERM)
	must(t, os.MkdirAll(filepath.Join(at.root, "snapshots", "5", "fs"), 0o700))
	must(t, os.Truncate(filepath.Join(at.root, "metadata.db"), 100))
	command := "containerd-strata-grpc fsck --rebuild --root " + at.root
	for _, args := range [][]string{at.args(), {"--config", os.DevNull, "--root", at.root, "fsck"}} {
		stdout, stderr, code := runCommand(t, args...)
		if code == 0 || !strings.Contains(stdout+stderr, command) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
	args := append([]string{"--config", os.DevNull}, strings.Fields(command)[1:]...)
	stdout, stderr, code := runCommand(t, append(args, "--dry-run")...)
	if code != fsck.ExitDamage || !strings.Contains(stdout, "0 committed") {
		t.Errorf("dry run: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	stdout, stderr, code = runCommand(t, args...)
	if code != fsck.ExitLeftovers || !strings.Contains(stdout, "metadata.db.damaged-") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	stdout, stderr, code = runCommand(t, args...)
	if code != fsck.ExitNotChecked || !strings.Contains(stderr, "nothing to rebuild") {
		t.Errorf("once more: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	p = startDaemon(t, at.args()...)
	p.stop(t, syscall.SIGTERM)
}
