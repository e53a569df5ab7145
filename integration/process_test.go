// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that normally takes far less than a second;
// it is long because machines are shared and the race detector is slow.
const patience = 60 * time.Second

// process is a daemon that a test started. It has a process group of its own, so that
// an interrupt at the terminal reaches the test first, which then cleans up.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startProcess starts a program with its log in dir. It finds other programs in the
// directories of path first.
func startProcess(t *testing.T, dir, path, program string, args ...string) *process {
	t.Helper()
	name := filepath.Base(program)
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the child has its own
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(),
		"PATH="+path+":"+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin",
		// A race is reported by the exit code; without, the detector waits a second at every end.
		"GORACE=halt_on_error=0 exitcode=66 atexit_sleep_ms=0")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // the state is read from cmd.ProcessState
		close(p.done)
	}()
	return p
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends sig and waits for the end.
func (p *process) signal(sig syscall.Signal) error {
	if p.running() {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s (pid %d) did not end within %s of %s", p.name, p.cmd.Process.Pid, patience, sig)
	}
}

// stop ends the process in the orderly way and fails the test if it does not end
// well: a data race makes the exit code 66.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if !p.running() {
		t.Errorf("%s ended before it was stopped: %s", p.name, p.cmd.ProcessState)
		return
	}
	if err := p.signal(syscall.SIGTERM); err != nil {
		t.Error(err)
		_ = p.signal(syscall.SIGKILL) // reported above
		return
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s: %s after SIGTERM", p.name, p.cmd.ProcessState)
	}
}

// eventually waits until check gives nil, and fails the test with its last error.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: still not so after %s: %v", what, patience, err)
}
