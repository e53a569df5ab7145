// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/config"
)

// captureConfig is an action that keeps the configuration it would run with.
func captureConfig(into *config.Config) cli.ActionFunc {
	return func(_ context.Context, cmd *cli.Command) (err error) {
		*into, err = effectiveConfig(cmd)
		return err
	}
}

func TestSignalsEndInOrder(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			at := newPlace(t)
			p := startDaemon(t, at.args()...)
			must(t, p.cmd.Process.Signal(sig))
			if state := p.state(t); state != "STOPPING=1" {
				t.Errorf("the daemon reports %q", state)
			}
			must(t, p.wait())
			if _, err := os.Lstat(at.address); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is still there: %v", err)
			}
		})
	}
}

func TestKilledDaemonStartsAgain(t *testing.T) {
	at := newPlace(t)
	ctx := t.Context()
	p := startDaemon(t, at.args()...)
	sn := proxyTo(t, at.address)
	_, err := sn.Prepare(ctx, "a", "")
	must(t, err)
	must(t, sn.Commit(ctx, "base", "a"))
	before, err := sn.Prepare(ctx, "active", "base")
	must(t, err)
	must(t, p.cmd.Process.Kill())
	_ = p.wait() // killed is an error
	if _, err := os.Lstat(at.address); err != nil {
		t.Fatalf("a killed daemon leaves its socket: %v", err)
	}

	p = startDaemon(t, at.args()...)
	sn = proxyTo(t, at.address)
	if _, err := sn.Stat(ctx, "base"); err != nil {
		t.Error(err)
	}
	after, err := sn.Mounts(ctx, "active")
	must(t, err)
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("mounts were %v, now they are %v", before, after)
	}
	if _, err := sn.Stat(ctx, "a"); !errdefs.IsNotFound(err) {
		t.Errorf("Stat of a committed key gives %v", err)
	}
	p.stop(t, syscall.SIGTERM)
}

func TestSecondDaemonOnOneRoot(t *testing.T) {
	at := newPlace(t)
	p := startDaemon(t, at.args()...)
	second := place{root: at.root, address: filepath.Join(shortDir(t), "second.sock")}
	_, stderr, code := runCommand(t, second.args()...)
	checkFailure(t, stderr, code, at.root, strconv.Itoa(p.cmd.Process.Pid))
	if _, err := proxyTo(t, at.address).Stat(t.Context(), "x"); !errdefs.IsNotFound(err) {
		t.Errorf("the first daemon answers %v", err)
	}
}

func TestSecondDaemonAtOneAddress(t *testing.T) {
	at := newPlace(t)
	p := startDaemon(t, at.args()...)
	second := newPlace(t)
	second.address = at.address
	_, stderr, code := runCommand(t, second.args()...)
	checkFailure(t, stderr, code, at.address, strconv.Itoa(p.cmd.Process.Pid))
	if _, err := os.Lstat(second.root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused daemon has made its root: %v", err)
	}
	if _, err := proxyTo(t, at.address).Stat(t.Context(), "x"); !errdefs.IsNotFound(err) {
		t.Errorf("the first daemon answers %v", err)
	}
}

// TestTwoStartsRace leaves a stale socket behind first: the worst case is two
// daemons that both find it stale.
func TestTwoStartsRace(t *testing.T) {
	first := newPlace(t)
	old := startDaemon(t, first.args()...)
	must(t, old.cmd.Process.Kill())
	_ = old.wait() // killed is an error
	second := newPlace(t)
	second.address = first.address
	a, b := launch(t, first.args()...), launch(t, second.args()...)
	states := []string{a.state(t), b.state(t)}
	switch {
	case states[0] == "READY=1" && states[1] == "":
		checkFailure(t, b.stderr.String(), b.cmd.ProcessState.ExitCode(), first.address)
	case states[0] == "" && states[1] == "READY=1":
		checkFailure(t, a.stderr.String(), a.cmd.ProcessState.ExitCode(), first.address)
	default:
		t.Fatalf("two daemons at one address report %q", states)
	}
	if _, err := proxyTo(t, first.address).Stat(t.Context(), "x"); !errdefs.IsNotFound(err) {
		t.Errorf("the winner answers %v", err)
	}
}

func TestForeignThingsAtTheAddressStay(t *testing.T) {
	at := newPlace(t)
	must(t, os.Mkdir(filepath.Dir(at.address), 0o700))
	must(t, os.WriteFile(at.address, []byte("mine"), 0o600))
	_, stderr, code := runCommand(t, at.args()...)
	checkFailure(t, stderr, code, at.address, "not a socket")
	if data, err := os.ReadFile(at.address); err != nil || string(data) != "mine" {
		t.Errorf("the file is now %q, %v", data, err)
	}
	must(t, os.Remove(at.address))
	ln, err := net.Listen("unix", at.address)
	must(t, err)
	_, stderr, code = runCommand(t, at.args()...)
	checkFailure(t, stderr, code, at.address, "served by another process")
	conn, err := net.Dial("unix", at.address)
	must(t, err)
	must(t, errors.Join(conn.Close(), ln.Close()))
}

// TestOutOfDescriptors takes all descriptors from the daemon while a client
// connects: accept fails, and works again once there are some.
func TestOutOfDescriptors(t *testing.T) {
	at := newPlace(t)
	p := startDaemon(t, at.args()...)
	pid := p.cmd.Process.Pid
	var normal unix.Rlimit
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &normal))
	if normal.Cur < 1<<20 && normal.Cur != normal.Max {
		t.Errorf("limit of open files is %d of %d", normal.Cur, normal.Max)
	}
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: normal.Max}, nil))
	conn, err := net.Dial("unix", at.address) // waits in the backlog
	must(t, err)
	p.waitForLog("too many open files")
	must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &normal, nil))
	if _, err := proxyTo(t, at.address).Stat(t.Context(), "x"); !errdefs.IsNotFound(err) {
		t.Errorf("afterwards the daemon answers %v", err)
	}
	must(t, conn.Close())
	p.stop(t, syscall.SIGTERM)
}

// TestClosedLogIsNotFatal starts with nobody at the other end of stderr: the
// first line of the log would be a SIGPIPE.
func TestClosedLogIsNotFatal(t *testing.T) {
	at := newPlace(t)
	reader, writer, err := os.Pipe()
	must(t, err)
	must(t, reader.Close())
	p := &process{cmd: command(at.args()...)}
	p.cmd.Stderr = writer
	p.start(t)
	if state := p.state(t); state != "READY=1" {
		t.Fatalf("the daemon reports %q", state)
	}
	p.stop(t, syscall.SIGTERM)
	must(t, writer.Close())
}

// A stuck daemon tells where it is stuck, and goes on.
func TestStacksOnSIGUSR1(t *testing.T) {
	at := newPlace(t)
	p := startDaemon(t, at.args()...)
	must(t, p.cmd.Process.Signal(syscall.SIGUSR1))
	p.waitForLog("wrote the stacks of all goroutines")
	if !strings.Contains(p.stderr.String(), "runDaemon(") {
		t.Errorf("nobody runs the daemon: %s", p.stderr.String())
	}
	p.stop(t, syscall.SIGTERM)
}
