// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

func TestErrorAtTheNthTime(t *testing.T) {
	t.Cleanup(Reset)
	if err := Set(LayerPlace, "error@2"); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, false} {
		if err := Hit(LayerPlace); errdefs.IsInternal(err) != want {
			t.Errorf("time %d: %v", i+1, err)
		}
	}
	if err := Hit(CommitRecord); err != nil {
		t.Errorf("another point: %v", err)
	}
	if n := Reached(LayerPlace); n != 3 {
		t.Errorf("reached %d times", n)
	}
	Reset()
	if err := Hit(LayerPlace); err != nil || Reached(LayerPlace) != 1 {
		t.Errorf("after Reset: %v", err)
	}
}

func TestBadSettings(t *testing.T) {
	for p, action := range map[Point]string{"no-such": "crash", LayerPlace: "explode", LayerPlaced: "crash@0", CommitRecord: "error@x", TrashMove: ""} {
		if err := Set(p, action); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s=%s: %v", p, action, err)
		}
	}
}

func TestBlockHoldsTheFirst(t *testing.T) {
	t.Cleanup(Reset)
	reached, release := Block(TrashMove)
	done := make(chan struct{})
	go func() { Pass(TrashMove); close(done) }()
	<-reached
	Pass(TrashMove) // the second goes by
	select {
	case <-done:
		t.Error("the first did not wait")
	default:
	}
	release()
	release()
	<-done
}

func TestPointsAreDifferent(t *testing.T) {
	all := Points()
	slices.Sort(all)
	if n := len(all); len(slices.Compact(all)) != n {
		t.Error("two points have one name")
	}
}

// A process that the environment tells to crash is killed there, and one that is told
// something else dies at once.
func TestEnvironment(t *testing.T) {
	if os.Getenv("STRATA_FAILPOINT_CHILD") != "" {
		Pass(LayerPlace)
		Pass(LayerPlace)
		return
	}
	for setting, want := range map[string]func(syscall.WaitStatus) bool{
		"layer-place=crash@2":                    func(s syscall.WaitStatus) bool { return s.Signaled() && s.Signal() == syscall.SIGKILL },
		"layer-place=crash@3":                    func(s syscall.WaitStatus) bool { return s.ExitStatus() == 0 },
		"layer-place=crush":                      func(s syscall.WaitStatus) bool { return s.ExitStatus() == 2 },
		"trash-move=error@1;layer-place=crash@1": func(s syscall.WaitStatus) bool { return s.Signaled() },
	} {
		cmd := exec.Command(os.Args[0], "-test.run=TestEnvironment")
		cmd.Env = append(os.Environ(), "STRATA_FAILPOINT_CHILD=1", Environment+"="+setting)
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !want(status) {
			t.Errorf("%s: %v", setting, err)
		}
	}
}
