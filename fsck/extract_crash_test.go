// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package fsck_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/failpoint"
)

// What a process that is killed is told by its parent.
const (
	repairRoot    = "STRATA_REPAIR_ROOT"
	repairContent = "STRATA_REPAIR_CONTENT"
)

// TestRepairChild is the process that is killed, or fails.
func TestRepairChild(t *testing.T) {
	root := os.Getenv(repairRoot)
	if root == "" {
		t.Skip("is run by TestCrashOrErrorInAnExtraction")
	}
	r, err := fsck.Repair(ctx, fsck.Options{Root: root, Content: os.Getenv(repairContent), Data: true}, yes)
	if err != nil || r.Worst() != "" {
		t.Fatalf("%v, %+v", err, r)
	}
}

// A repair that is killed, or fails, at any step of extracting a layer again leaves a root
// that can be used, and that the next repair puts right.
func TestCrashOrErrorInAnExtraction(t *testing.T) {
	for _, p := range failpoint.RepairPoints() {
		for _, action := range []string{"crash", "error"} {
			t.Run(string(p)+" "+action, func(t *testing.T) {
				root := newPulled(t)
				want := root.views()
				root.must(os.Remove(root.at(0, "fs/a/b")))
				cmd := exec.Command(os.Args[0], "-test.run=^TestRepairChild$")
				cmd.Env = append(os.Environ(), repairRoot+"="+root.root, repairContent+"="+root.content,
					fmt.Sprintf("%s=%s=%s", failpoint.Environment, p, action))
				cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				canFail := p != failpoint.RepairPlaced && p != failpoint.RepairSwapped
				if errors.As(err, &exit) != (action == "crash" || canFail) {
					t.Fatalf("%v, %s", err, out)
				}
				s := root.open()
				root.must(s.Close())
				r, err := fsck.Repair(ctx, root.options(), yes)
				root.must(err)
				wantCodes(t, "repair", r, nil)
				sameDump(t, want, root.views())
				root.goesOn()
			})
		}
	}
}
