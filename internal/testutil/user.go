// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// OrdinaryID is the user and group that AsUser runs tests as: nobody, who is in every
// /etc/passwd, as fusermount3(1) demands, and has no subordinate ids.
const OrdinaryID = 65534

// userMark is set in the environment of the copy that AsUser starts.
const userMark = "STRATA_TEST_AS_USER"

// AsUser runs the calling test a second time as an ordinary user: without privilege,
// further groups or a user namespace, in a temporary directory of its own. It returns
// true in that copy, and false in the original, which has failed or skipped exactly as
// the copy did. See InUserNS.
func AsUser(t *testing.T) bool {
	t.Helper()
	if os.Getenv(userMark) != "" {
		return true
	}
	RequireRoot(t)
	home, err := os.MkdirTemp("", "ordinary")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	}()
	if err := os.Chown(home, OrdinaryID, OrdinaryID); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run="+exactly(t.Name()), "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), userMark+"=1", "HOME="+home, "TMPDIR="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: OrdinaryID, Gid: OrdinaryID},
		Pdeathsig:  syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("as an ordinary user: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skipf("skipped as an ordinary user:\n%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("the test did not run as an ordinary user:\n%s", out)
	}
	return false
}
