// SPDX-License-Identifier: Apache-2.0

package privatens

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

const childDir = "STRATA_PRIVATENS_TEST"

// In a namespace of its own Forget lets go of what is mounted, but for what is asked to
// be kept; here nothing changes.
func TestForget(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		forgetIn(t, dir)
		return
	}
	testutil.RequireRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"kept", "let-go"} {
		testutil.CheckNoMounts(t, filepath.Join(dir, name))
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", filepath.Join(dir, name), "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestForget$")
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in the namespace: %v: %s", err, out)
	}
	if left := testutil.MountsUnder(t, dir); len(left) != 2 {
		t.Errorf("out here are %v", left)
	}
	for _, name := range []string{"kept", "let-go"} {
		if err := syscall.Unmount(filepath.Join(dir, name), 0); err != nil {
			t.Error(err)
		}
	}
}

func forgetIn(t *testing.T, dir string) {
	t.Helper()
	kept := filepath.Join(dir, "kept")
	if err := Forget(dir, filepath.Join(kept, "below")); err != nil {
		t.Fatal(err)
	}
	if left := testutil.MountsUnder(t, dir); len(left) != 1 || left[0] != kept {
		t.Errorf("left are %v", left)
	}
}
