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
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestFsck(t *testing.T) {
	testutil.RequireRoot(t)
	at := newPlace(t)
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
