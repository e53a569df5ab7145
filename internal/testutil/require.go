// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"os"
	"os/exec"
	"testing"
)

// RequireRoot skips the test unless it runs as uid 0 (of its user namespace).
// When the environment variable CI is set it fails instead: a CI run that skips
// the kernel tests would be green without having tested anything.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		CannotRun(t, "needs root: it mounts file systems")
	}
}

// RequireTool skips the test, or fails it when CI is set, unless every named
// program is found in PATH.
func RequireTool(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			CannotRun(t, "needs the program "+name+" in PATH")
		}
	}
}

// CannotRun ends a test that the machine has not what it takes for: a skip by
// hand, a failure when CI is set.
func CannotRun(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("CI is set, so this test must run, but it %s", why)
	}
	t.Skipf("skipped: %s", why)
}
