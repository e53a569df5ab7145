// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metricsPath is that of containerd's own metrics.
const metricsPath = "/v1/metrics"

// Bounds of a scrape, so that clients that go to sleep take nothing.
const (
	metricsTimeout = 10 * time.Second
	maxScrapes     = 4
)

// metricsServer serves metrics.
type metricsServer struct {
	server   *http.Server
	listener net.Listener
	release  func() error
	done     chan struct{}
}

// serveMetrics listens at address, HOST:PORT or the path of a socket, which the same
// peers may use as the daemon's own; nil for none. Anybody who reaches HOST:PORT may read.
//
// ErrFailedPrecondition: the address is taken or can't be used.
func serveMetrics(ctx context.Context, address, group string, m *metrics) (*metricsServer, error) {
	if address == "" {
		return nil, nil
	}
	s := &metricsServer{release: func() error { return nil }, done: make(chan struct{})}
	if err := s.listen(ctx, address, group); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+metricsPath, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: metricsTimeout}))
	s.server = &http.Server{Handler: mux, ReadTimeout: metricsTimeout, WriteTimeout: 2 * metricsTimeout, IdleTimeout: 6 * metricsTimeout}
	go s.serve(ctx)
	return s, nil
}

func (s *metricsServer) listen(ctx context.Context, address, group string) (err error) {
	if filepath.IsAbs(address) {
		l, err := listen(ctx, address, group)
		if err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		s.listener, s.release = l, l.release
		return nil
	}
	if s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
		return fmt.Errorf("serve metrics at %s: %w: %w", address, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func (s *metricsServer) serve(ctx context.Context) {
	defer close(s.done)
	log.G(ctx).WithField("address", s.listener.Addr()).Info("serving metrics")
	if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		log.G(ctx).WithError(err).Error("metrics are not served any more")
	}
}

// Close ends scrapes under way. It may be called on nil.
func (s *metricsServer) Close() error {
	if s == nil {
		return nil
	}
	err := s.server.Close()
	<-s.done
	return errors.Join(err, s.release())
}
