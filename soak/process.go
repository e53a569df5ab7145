// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// patience bounds every wait for something that normally takes far less than a second;
// it is long because machines are shared.
const patience = 60 * time.Second

// process is a daemon that was started.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startProcess starts a program with its log in dir. It finds other programs in bin first.
func startProcess(dir, bin, program string, args ...string) (*process, error) {
	name := filepath.Base(program)
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(),
		"PATH="+bin+":"+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin",
		"GORACE=halt_on_error=0 exitcode=66 atexit_sleep_ms=0")
	// An interrupt at the terminal is for us.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		_ = p.cmd.Wait() // the state is read from cmd.ProcessState
		close(p.done)
	}()
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// end sends a signal and waits for the end.
func (p *process) end(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s (pid %d) did not end within %s of %s", p.name, p.cmd.Process.Pid, patience, sig)
	}
}

// stop ends it in order: it must end well.
func (p *process) stop() error {
	if !p.running() {
		return fmt.Errorf("%s ended by itself: %s", p.name, p.cmd.ProcessState)
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		return err
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s: %s after SIGTERM", p.name, p.cmd.ProcessState)
	}
	return nil
}
