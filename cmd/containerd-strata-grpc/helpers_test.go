// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

const daemonEnv = "STRATA_TEST_RUN_MAIN"

// TestMain makes the test binary the daemon itself: with the variable set it
// is main, in a real process with real signals.
func TestMain(m *testing.M) {
	if os.Getenv(daemonEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// ended stands for the end of a process among its reports.
const ended = "ENDED=1"

// place is where one daemon lives.
type place struct {
	root, address string
}

func newPlace(t *testing.T) place {
	t.Helper()
	testutil.RequireRoot(t)
	p := place{
		root:    filepath.Join(testutil.Tmpfs(t), "root"),
		address: filepath.Join(shortDir(t), "run", "s.sock"),
	}
	fscktest.AtEnd(t, p.root)
	return p
}

func (p place) args() []string {
	return []string{"--config", os.DevNull, "--root", p.root, "--address", p.address, "--log-level", "debug"}
}

// shortDir is a temporary directory with a path short enough for a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "strata")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// process is a running daemon.
type process struct {
	cmd    *exec.Cmd
	stderr logBuffer
	notify *net.UnixConn
	wait   func() error
}

// launch starts the daemon with a service manager's socket to report to. It
// is killed when the test ends.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: command(args...)}
	p.cmd.Stderr = &p.stderr
	p.start(t)
	return p
}

func (p *process) start(t *testing.T) {
	t.Helper()
	address := filepath.Join(shortDir(t), "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	must(t, err)
	p.notify = notify
	p.cmd.Env = append(p.cmd.Env, "NOTIFY_SOCKET="+address)
	must(t, p.cmd.Start())
	p.wait = sync.OnceValue(p.cmd.Wait)
	go p.reportEnd(address)
	t.Cleanup(func() {
		if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("kill daemon: %v", err)
		}
		_ = p.wait() // killed is an error too
		must(t, notify.Close())
		if t.Failed() {
			t.Logf("log of daemon %d:\n%s", p.cmd.Process.Pid, p.stderr.String())
		}
	})
}

// waitForLog waits until text has been logged.
func (p *process) waitForLog(text string) {
	for !strings.Contains(p.stderr.String(), text) {
		time.Sleep(5 * time.Millisecond)
	}
}

// logBuffer is a destination that can be read while it is written to.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startDaemon launches a daemon and waits until it serves.
func startDaemon(t *testing.T, args ...string) *process {
	t.Helper()
	p := launch(t, args...)
	if state := p.state(t); state != "READY=1" {
		t.Fatalf("the daemon reports %q", state)
	}
	return p
}

// state waits for the next report to the service manager, or for the end of
// the process, which is reported as "".
func (p *process) state(t *testing.T) string {
	t.Helper()
	buf := make([]byte, 256)
	n, err := p.notify.Read(buf)
	must(t, err)
	return strings.TrimPrefix(string(buf[:n]), ended)
}

// reportEnd waits for the end of the process and puts it into the same queue
// as the reports the process has made before.
func (p *process) reportEnd(address string) {
	_ = p.wait() // the test looks at the error
	conn, err := net.Dial("unixgram", address)
	if err != nil {
		return // the test is over
	}
	_, _ = conn.Write([]byte(ended))
	_ = conn.Close()
}

// stop sends a signal and expects an orderly end.
func (p *process) stop(t *testing.T, sig os.Signal) {
	t.Helper()
	must(t, p.cmd.Process.Signal(sig))
	if err := p.wait(); err != nil {
		t.Fatalf("end after %v: %v", sig, err)
	}
}

// command is the daemon's command line, not yet started.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = name
	cmd.Env = append(os.Environ(), daemonEnv+"=1",
		"GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE")) // otherwise a second for every process
	return cmd
}

// runCommand runs a command to its end.
func runCommand(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// checkFailure expects exit code 1 and one line that says what went wrong,
// after whatever was logged.
func checkFailure(t *testing.T, stderr string, code int, want ...string) {
	t.Helper()
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	last := lines[len(lines)-1]
	if !strings.HasPrefix(last, name+": ") {
		t.Errorf("last line of stderr: %q", last)
	}
	for _, s := range want {
		if !strings.Contains(last, s) {
			t.Errorf("%q is not in the message: %s", s, last)
		}
	}
}

func client(t *testing.T, address string) snapshotsapi.SnapshotsClient {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	return snapshotsapi.NewSnapshotsClient(conn)
}

func proxyTo(t *testing.T, address string) snapshots.Snapshotter {
	t.Helper()
	return proxy.NewSnapshotter(client(t, address), "strata")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
