// SPDX-License-Identifier: Apache-2.0

package idle

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func priority(t *testing.T) (io, nice int) {
	t.Helper()
	class, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, ioprioWhoProcess, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	return int(class), 20 - raw // the system call's form, see getpriority(2)
}

func TestRunIsIdleAndAlone(t *testing.T) {
	failed := errors.New("failed")
	err := Run(t.Context(), func() error {
		if io, nice := priority(t); io != ioprioIdle || nice != nicest {
			t.Errorf("in it: %d, %d", io, nice)
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if io, nice := priority(t); io == ioprioIdle || nice == nicest {
		t.Errorf("outside: %d, %d", io, nice)
	}
}

// Bytes take their time at the rate, and a pause is not saved up.
func TestPace(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel() // so that nothing is waited for
	p := NewPace(1 << 20)
	before := time.Now().Add(time.Hour)
	p.free = before
	_ = p.Wait(ended, 3<<20)
	if took := p.free.Sub(before); took != 3*time.Second {
		t.Errorf("3 MiB take %v", took)
	}
	p.free = time.Now().Add(-time.Hour)
	if _ = p.Wait(ended, 1); time.Until(p.free) < -time.Minute {
		t.Error("an hour without work was saved up")
	}
}

func TestPaceEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := NewPace(1).Wait(ctx, 1<<40); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := NewPace(0).Wait(ctx, 1<<40); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a limit: %v", err)
	}
}
