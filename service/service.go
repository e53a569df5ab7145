// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/diffservice"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/coreos/go-systemd/v22/daemon"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/diff"
)

// drainTimeout is how long Serve lets calls finish that were under way when
// it was told to stop. systemd's default for a whole stop is 90 seconds.
const drainTimeout = 10 * time.Second

// Service is a snapshotter and a differ, and the socket that serves them.
type Service struct {
	snapshotter  snapshots.Snapshotter
	containerd   *diff.Client
	differ       *diff.Differ
	listener     *listener
	server       *grpc.Server
	health       *health.Server
	calls        *calls
	metrics      *metricsServer // nil: none
	drainTimeout time.Duration
	scrub        *Scrub
	close        func() error
}

// New makes the socket, opens the snapshotter and raises the limit of open
// files. Clients that connect before Serve wait.
//
// Errors are InvalidArgument for a configuration that is wrong,
// FailedPrecondition for an address that is taken or can't be used, and
// whatever class snapshotter.New gives. Nothing stays open then.
func New(ctx context.Context, cfg config.Config) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	raiseNofile(ctx)
	ln, err := listen(ctx, cfg.Address, cfg.Group)
	if err != nil {
		return nil, err
	}
	containerd, err := diff.NewClient(cfg.ContainerdAddress, cfg.ContentRoot)
	if err != nil {
		return nil, errors.Join(err, ln.Close(), ln.release())
	}
	sn, err := OpenSnapshotter(ctx, Opening{Root: cfg.Root, Options: cfg.Snapshotter, Limits: cfg.Limits, Staging: containerd.KnowsStaged})
	if err != nil {
		return nil, errors.Join(err, containerd.Close(), ln.Close(), ln.release())
	}
	differ, err := OpenDiffer(containerd.Services(), sn, cfg.Root, cfg.Limits)
	if err != nil {
		return nil, errors.Join(err, containerd.Close(), sn.Close(), ln.Close(), ln.release())
	}
	counted := newMetrics()
	s := assemble(sn, containerd, differ, ln, counted)
	s.scrub = NewScrub(sn, cfg.Root, cfg.Scrub)
	counted.register(scrubCollector{s.scrub})
	if s.metrics, err = serveMetrics(ctx, cfg.Metrics.Address, cfg.Group, counted); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// ScrubStats are what checking layers in the background has done.
func (s *Service) ScrubStats() ScrubStats { return s.scrub.Stats() }

// assemble registers the APIs of sn and of the differ on a server for ln.
func assemble(sn snapshots.Snapshotter, containerd *diff.Client, differ *diff.Differ, ln *listener, counted *metrics) *Service {
	watched := newCalls(callLimits{maxLeft: maxLeft, leaveAfter: leaveAfter, slowAfter: slowAfter}, counted)
	counted.register(leftCollector(watched))
	if layers := newLayerCollector(sn); layers != nil {
		counted.register(layers)
	}
	s := &Service{
		calls:       watched,
		differ:      differ,
		snapshotter: sn,
		containerd:  containerd,
		listener:    ln,
		server: grpc.NewServer(
			grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
			grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
			grpc.ChainUnaryInterceptor(classifyUnary, watched.unary),
			grpc.ChainStreamInterceptor(classifyStream, watched.stream),
			// The snapshotter is closed after Stop: a handler that is still
			// running would find its database gone.
			grpc.WaitForHandlers(true),
		),
		health:       health.NewServer(),
		drainTimeout: drainTimeout,
	}
	s.close = sync.OnceValue(s.shutdown)
	snapshotsapi.RegisterSnapshotsServer(s.server, snapshotservice.FromSnapshotter(sn))
	diffapi.RegisterDiffServer(s.server, diffservice.FromApplierAndComparer(differ, differ))
	healthapi.RegisterHealthServer(s.server, s.health)
	return s
}

// Serve answers calls until ctx is done, then takes no new ones and lets
// those under way finish for up to 10 seconds before it cancels them. It
// returns nil after such a stop. The service manager is told when serving
// begins and when it ends, see sd_notify(3).
//
// An error is Unavailable: the socket failed. Serve can be called once; Close
// is due in every case.
func (s *Service) Serve(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(s.listener) }()
	notify(ctx, daemon.SdNotifyReady)
	log.G(ctx).WithField("address", s.listener.address).Info("serving")
	defer s.scrub.start(ctx, s.drainTimeout)()
	select {
	case err := <-served:
		return s.served(err)
	case <-ctx.Done():
	}
	notify(ctx, daemon.SdNotifyStopping)
	s.drain(ctx)
	return s.served(<-served)
}

// served classifies how the gRPC server ended. Having been stopped, even
// before it had begun, is what was asked for.
func (s *Service) served(err error) error {
	if err == nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("serve %s: %w: %w", s.listener.address, err, errdefs.ErrUnavailable)
}

// drain stops the server once its calls have finished or the time is up.
func (s *Service) drain(ctx context.Context) {
	s.health.Shutdown()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.server.GracefulStop()
	}()
	timer := time.NewTimer(s.drainTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		log.G(ctx).WithField("timeout", s.drainTimeout).Warn("calls have not finished in time, cancelling them")
		s.server.Stop()
		<-done
	}
}

// Close ends what Serve has left, removes the socket and closes the
// snapshotter. Errors have the classes of snapshotter.Close, or Unknown for
// the socket. Further calls give the same answer.
func (s *Service) Close() error { return s.close() }

// shutdown closes in the order in which the parts use each other; the lock of
// the address goes last, so that a successor finds a root nobody holds. While a call
// hangs the snapshotter stays open: closing it would hang, too.
func (s *Service) shutdown() error {
	s.server.Stop()
	err := errors.Join(s.metrics.Close(), s.listener.Close(), s.containerd.Close())
	if hangs := cmp.Or(s.calls.wait(s.drainTimeout), s.closeDiffer()); hangs != nil {
		return errors.Join(err, hangs, s.listener.release())
	}
	return errors.Join(err, s.snapshotter.Close(), s.listener.release())
}

// closeDiffer ends what the differ does ahead of calls, which can hang as they can.
func (s *Service) closeDiffer() error {
	closed := make(chan error, 1)
	go func() { closed <- s.differ.Close() }()
	timer := time.NewTimer(max(s.drainTimeout, time.Second))
	defer timer.Stop()
	select {
	case err := <-closed:
		return err
	case <-timer.C:
		return fmt.Errorf("unpacking a layer ahead still hangs; the next start puts the root in order: %w", errdefs.ErrUnavailable)
	}
}

// notify tells the service manager, if there is one. A failure is only
// logged: the manager has a time limit of its own.
func notify(ctx context.Context, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.G(ctx).WithError(err).Warnf("tell the service manager %s", state)
	}
}
