// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// patience bounds every wait for a daemon.
const patience = time.Minute

// daemon is a program that this process started. It has a process group of its own:
// an interrupt at the terminal reaches us first, and we end it in order.
type daemon struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	idle int64         // resident bytes right after its start
}

func startDaemon(dir, program string, args ...string) (*daemon, error) {
	name := filepath.Base(program)
	d := &daemon{name: name, log: filepath.Join(dir, name+".log"), cmd: exec.Command(program, args...), done: make(chan struct{})}
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.Env = append(os.Environ(), "CONTAINERD_DISABLE_IGZIP=1", "CONTAINERD_DISABLE_PIGZ=1")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = d.cmd.Wait() // the state is read from cmd.ProcessState
		close(d.done)
	}()
	return d, nil
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// ended tells how, if it has.
func (d *daemon) ended() error {
	select {
	case <-d.done:
		text, err := os.ReadFile(d.log)
		if err != nil {
			text = []byte(err.Error())
		}
		return fmt.Errorf("%s ended: %s\n%s", d.name, d.cmd.ProcessState, lastLines(text))
	default:
		return nil
	}
}

func lastLines(text []byte) []byte {
	const most = 2000
	return text[max(0, len(text)-most):]
}

// stop asks, and insists after a while.
func (d *daemon) stop() error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if d.ended() != nil {
			return nil
		}
		_ = d.cmd.Process.Signal(sig) // it may have ended just now
		select {
		case <-d.done:
			return nil
		case <-time.After(patience / 4):
		}
	}
	return fmt.Errorf("%s (pid %d) can't be ended", d.name, d.pid())
}

// eventually repeats check until it gives nil. It gives up when one of the daemons has
// ended.
func eventually(ctx context.Context, what string, daemons []*daemon, check func() error) error {
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil {
			return nil
		}
		for _, d := range daemons {
			if err := d.ended(); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%s: not so after %s: %w", what, patience, err)
}
