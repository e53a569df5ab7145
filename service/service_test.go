// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestErrorClassesCrossTheSocket(t *testing.T) {
	cfg := start(t, func(*config.Config) {})
	sn := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(dial(t, cfg.Address)), "strata")
	ctx := t.Context()
	if _, err := sn.Stat(ctx, "nothing"); !errdefs.IsNotFound(err) {
		t.Errorf("Stat of an unknown key gives %v", err)
	}
	nothing := func(context.Context, snapshots.Info) error { return nil }
	if err := sn.Walk(ctx, nothing, "labels.=="); !errdefs.IsInvalidArgument(err) {
		t.Errorf("Walk with a broken filter gives %v", err)
	}
	if _, err := sn.Prepare(ctx, "key", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := sn.Prepare(ctx, "key", ""); !errdefs.IsAlreadyExists(err) {
		t.Errorf("Prepare of a key that exists gives %v", err)
	}
	if _, err := sn.Prepare(ctx, "other", "nothing"); !errdefs.IsNotFound(err) {
		t.Errorf("Prepare on an unknown parent gives %v", err)
	}
}

func TestInterceptorsKeepStatusAndClassifyTheRest(t *testing.T) {
	for _, test := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{errdefs.ErrNotFound, codes.NotFound},
		{errors.Join(errors.New("x"), errdefs.ErrFailedPrecondition), codes.FailedPrecondition},
		{status.Error(codes.DataLoss, "x"), codes.DataLoss},
		{context.Canceled, codes.Canceled},
		{errors.New("x"), codes.Unknown},
	} {
		_, err := classifyUnary(t.Context(), nil, nil, func(context.Context, any) (any, error) { return nil, test.err })
		if status.Code(err) != test.want {
			t.Errorf("call: %v becomes %v, want %v", test.err, err, test.want)
		}
	}
}

func TestPanicIsNotSwallowed(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("the panic of a handler was swallowed")
		}
	}()
	_, _ = classifyUnary(t.Context(), nil, nil, func(context.Context, any) (any, error) { panic("bug") })
}

// TestDrainIsBounded: a Watch never ends by itself, so Serve returns only if
// it cancels calls when the time is up.
func TestDrainIsBounded(t *testing.T) {
	testutil.RequireRoot(t)
	cfg := config.Default()
	cfg.Root = filepath.Join(testutil.Tmpfs(t), "root")
	cfg.Address = filepath.Join(publicDir(t), "s.sock")
	fscktest.AtEnd(t, cfg.Root)
	s, err := New(t.Context(), cfg)
	must(t, err)
	s.drainTimeout = 1
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	watch, err := healthapi.NewHealthClient(dial(t, cfg.Address)).Watch(t.Context(), &healthapi.HealthCheckRequest{})
	must(t, err)
	resp, err := watch.Recv()
	must(t, err)
	if resp.GetStatus() != healthapi.HealthCheckResponse_SERVING {
		t.Errorf("health is %v", resp.GetStatus())
	}
	cancel()
	must(t, <-served)
	if _, err := os.Lstat(cfg.Address); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	must(t, s.Close())
	must(t, s.Close())
}

func TestCloseWithoutServe(t *testing.T) {
	testutil.RequireRoot(t)
	cfg := config.Default()
	cfg.Root = filepath.Join(testutil.Tmpfs(t), "root")
	cfg.Address = filepath.Join(publicDir(t), "s.sock")
	for range 2 {
		fscktest.AtEnd(t, cfg.Root)
		s, err := New(t.Context(), cfg)
		must(t, err)
		must(t, s.Close())
		if _, err := os.Lstat(cfg.Address); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	}
}

func TestServeWhenAlreadyToldToStop(t *testing.T) {
	testutil.RequireRoot(t)
	cfg := config.Default()
	cfg.Root = filepath.Join(testutil.Tmpfs(t), "root")
	cfg.Address = filepath.Join(publicDir(t), "s.sock")
	fscktest.AtEnd(t, cfg.Root)
	s, err := New(t.Context(), cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.Serve(ctx))
	must(t, s.Close())
}

func TestFailedNewLeavesNoSocket(t *testing.T) {
	cfg := start(t, func(*config.Config) {})
	second := cfg
	second.Address = filepath.Join(publicDir(t), "second.sock")
	_, err := New(t.Context(), second)
	if err == nil || !strings.Contains(err.Error(), cfg.Root) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("a second service on one root gives %v", err)
	}
	if _, err := os.Lstat(second.Address); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestInvalidConfigIsRefused(t *testing.T) {
	cfg := config.Default()
	cfg.Root = "relative"
	if _, err := New(t.Context(), cfg); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	options := config.Default().Snapshotter
	options.MountOptions = []string{"lowerdir=/etc"}
	if _, err := OpenSnapshotter(t.Context(), Opening{Root: t.TempDir(), Options: options, Limits: config.DefaultLimits()}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

func TestNofile(t *testing.T) {
	testutil.RequireRoot(t)
	var before unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	after, err := setNofile(before.Cur)
	must(t, err)
	if after.Cur < before.Cur || after.Max < before.Max {
		t.Errorf("limits %+v became %+v", before, after)
	}
	// Without CAP_SYS_RESOURCE the hard limit stays, the soft one reaches it.
	out := runChild(t, "nofile", &syscall.Credential{Uid: strangerID, Gid: strangerID})
	fields := strings.Fields(out)
	if len(fields) != 3 || fields[0] != fields[1] || fields[2] != "<nil>" {
		t.Errorf("limits of an unprivileged process: %s", out)
	}
}
