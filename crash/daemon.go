// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/diff"
	diffproxy "github.com/containerd/containerd/v2/core/diff/proxy"
	"github.com/containerd/containerd/v2/core/snapshots"
	snapshotsproxy "github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// patience bounds the wait for the daemon to begin or to end.
const patience = 30 * time.Second

func buildDaemon(dir string) (string, error) {
	program := filepath.Join(dir, "containerd-strata-grpc")
	cmd := exec.Command("go", "build", "-o", program, "github.com/strata-snapshotter/strata/cmd/containerd-strata-grpc")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the daemon: %w: %s", err, out)
	}
	return program, nil
}

// daemon is a containerd-strata-grpc that this process started, and its clients.
type daemon struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	conn *grpc.ClientConn
	sn   snapshots.Snapshotter
	diff diff.Applier
}

// setting is where a daemon works.
type setting struct {
	program string
	dir     string // of its configuration, its socket and its log
	root    string
	content string // directory of the content store
	socket  string // of the content service
	none    bool   // durability
}

const configText = `version = 1
root = %q
address = %q
containerd_address = %q
content_root = %q
[snapshotter]
upperdir_label = true
durability = %q
`

func (s setting) writeConfig() error {
	durability := "commit"
	if s.none {
		durability = "none"
	}
	text := fmt.Sprintf(configText, s.root, s.address(), s.socket, s.content, durability)
	return os.WriteFile(s.config(), []byte(text), 0o600)
}

func (s setting) config() string  { return filepath.Join(s.dir, "strata.toml") }
func (s setting) address() string { return filepath.Join(s.dir, "strata.sock") }

// startDaemon returns when the daemon answers. errDaemon is in the error if it does
// not, and what it said.
func startDaemon(ctx context.Context, s setting) (*daemon, error) {
	d := &daemon{log: filepath.Join(s.dir, "strata.log"), done: make(chan struct{})}
	out, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own
	d.cmd = exec.Command(s.program, "--config", s.config())
	d.cmd.Stdout, d.cmd.Stderr = out, out
	// An interrupt at the terminal is for us.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.program, err)
	}
	go func() {
		_ = d.cmd.Wait() // how it ended is in its log
		close(d.done)
	}()
	if err := d.connect(ctx, s.address()); err != nil {
		return nil, errors.Join(err, d.kill())
	}
	return d, nil
}

// errDaemon is that the daemon does not answer.
var errDaemon = errors.New("the daemon does not serve")

func (d *daemon) connect(ctx context.Context, address string) (err error) {
	// The first call finds no socket yet, and would then wait for a second.
	soon := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.2, MaxDelay: 50 * time.Millisecond}}
	d.conn, err = grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(soon))
	if err != nil {
		return err
	}
	d.sn = snapshotsproxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(d.conn), "strata")
	applier, ok := diffproxy.NewDiffApplier(diffapi.NewDiffClient(d.conn)).(diff.Applier)
	if !ok {
		return errors.New("containerd's proxy is no diff.Applier any more")
	}
	d.diff = applier
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		_, err = d.sn.Stat(ctx, "is anybody there")
		if errdefs.IsNotFound(err) {
			return nil
		}
		select {
		case <-d.done:
			return fmt.Errorf("%w: it ended: %s", errDaemon, d.lastWords())
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
	}
	return fmt.Errorf("%w: %w: %s", errDaemon, err, d.lastWords())
}

func (d *daemon) lastWords() string {
	const most = 600
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}

// signalKill does not wait for its end.
func (d *daemon) signalKill() error {
	if err := d.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// kill ends it at once.
func (d *daemon) kill() error { return d.end(syscall.SIGKILL) }

// stop asks it to end in order.
func (d *daemon) stop() error { return d.end(syscall.SIGTERM) }

// end may be called again.
func (d *daemon) end(sig syscall.Signal) error {
	_ = d.cmd.Process.Signal(sig) // it may have ended just now
	select {
	case <-d.done:
	case <-time.After(patience):
		return fmt.Errorf("the daemon (pid %d) did not end on %s", d.cmd.Process.Pid, sig)
	}
	if d.conn == nil {
		return nil
	}
	conn := d.conn
	d.conn = nil
	return conn.Close()
}
