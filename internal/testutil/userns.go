// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// userNSMark is set in the environment of the copy that InUserNS starts.
const userNSMark = "STRATA_TEST_IN_USERNS"

// userNSSize is the number of ids that the namespace of InUserNS has.
const userNSSize = 65536

// InUserNS runs the calling test a second time, in a new user and mount
// namespace whose ids 0..65535 are the ids hostID.. of the caller's namespace.
// It returns true in that copy, which then does the work as uid 0, and false in
// the original, which has failed or skipped exactly as the copy did:
//
//	func TestX(t *testing.T) {
//		if !testutil.InUserNS(t, 100000) {
//			return
//		}
//		...
//	}
func InUserNS(t *testing.T, hostID int) bool {
	t.Helper()
	if os.Getenv(userNSMark) != "" {
		return true
	}
	RequireRoot(t)
	// The copy is started through /proc/self/exe: the directory that go test
	// keeps the binary in may be closed to the mapped root.
	cmd := exec.Command("/proc/self/exe", "-test.run="+exactly(t.Name()), "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), userNSMark+"=1")
	cmd.SysProcAttr = userNSAttr(hostID)
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in the user namespace: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skipf("skipped in the user namespace:\n%s", out)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("the test did not run in the user namespace:\n%s", out)
	}
	return false
}

// exactly is the -test.run pattern that matches one test or subtest.
func exactly(name string) string {
	return "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
}

func userNSAttr(hostID int) *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: hostID, Size: userNSSize}}
	return &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings:                ids,
		GidMappings:                ids,
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{Uid: 0, Gid: 0},
		Pdeathsig:                  syscall.SIGKILL,
	}
}
