// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

const (
	childEnv = "STRATA_SERVICE_TEST_CHILD"
	// strangerID is a user and group that exists nowhere.
	strangerID = 54320
	// testGroup is a group number that exists nowhere.
	testGroup = 54321
)

// TestMain makes the test binary a client too: what a peer may do is only
// shown by a process with that peer's credentials.
func TestMain(m *testing.M) {
	task, argument, _ := strings.Cut(os.Getenv(childEnv), " ")
	switch task {
	case "":
		os.Exit(m.Run())
	case "health":
		fmt.Println(healthCode(argument))
	case "nofile":
		limit, err := setNofile(wantedNofile)
		fmt.Println(limit.Cur, limit.Max, err)
	}
}

// healthCode asks the health service at address and returns the gRPC code.
func healthCode(address string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err.Error()
	}
	_, err = healthapi.NewHealthClient(conn).Check(ctx, &healthapi.HealthCheckRequest{})
	if closeErr := conn.Close(); closeErr != nil {
		return closeErr.Error()
	}
	return status.Code(err).String()
}

// runChild runs the test binary for a task as another user.
func runChild(t *testing.T, task string, who *syscall.Credential) string {
	t.Helper()
	cmd := exec.Command(publicTestBinary(t))
	cmd.Env = append(os.Environ(), childEnv+"="+task,
		"GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE")) // otherwise a second for every child
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child %q: %v\n%s", task, err, out)
	}
	return strings.TrimSpace(string(out))
}

// publicTestBinary copies the test binary to where any user can run it: the
// go tool keeps it in a directory of mode 0700.
func publicTestBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(publicDir(t), "client")
	self, err := os.Executable()
	must(t, err)
	in, err := os.Open(self)
	must(t, err)
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, err)
	must(t, in.Close())
	must(t, out.Close())
	must(t, os.Chmod(path, 0o755))
	return path
}

// publicDir is a temporary directory any user may enter, with a path short
// enough for a socket.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "strata")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// start serves a fresh root at a socket in a directory the daemon makes. The
// service is stopped and closed when the test ends.
func start(t *testing.T, change func(*config.Config)) config.Config {
	t.Helper()
	testutil.RequireRoot(t)
	cfg := config.Default()
	cfg.Root = filepath.Join(testutil.Tmpfs(t), "root")
	cfg.Address = filepath.Join(publicDir(t), "run", "s.sock")
	change(&cfg)
	fscktest.AtEnd(t, cfg.Root)
	s, err := New(t.Context(), cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-served)
		must(t, s.Close())
	})
	return cfg
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { must(t, conn.Close()) })
	return conn
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
