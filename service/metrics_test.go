// SPDX-License-Identifier: Apache-2.0

package service

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/config"
)

// scrape reads the metrics at an address.
func scrape(t *testing.T, network, address string) string {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("http://metrics" + metricsPath)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", resp.Status, body)
	}
	return string(body)
}

func TestMetrics(t *testing.T) {
	socket := filepath.Join(publicDir(t), "m.sock")
	cfg := start(t, func(c *config.Config) { c.Metrics.Address = socket })
	sn := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(dial(t, cfg.Address)), "strata")
	_, err := sn.Prepare(t.Context(), "k", "")
	must(t, err)
	if _, err := sn.Stat(t.Context(), "nothing"); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
	got := scrape(t, "unix", socket)
	for _, want := range []string{
		`strata_calls_total{code="OK",method="Prepare"} 1`,
		`strata_calls_total{code="NotFound",method="Stat"} 1`,
		`strata_call_duration_seconds_count{method="Prepare"} 1`,
		"strata_calls_left 0", "strata_scrub_damaged_layers 0", "strata_trash_pending 0", "strata_extracted_bytes_total 0",
		`strata_layers_total{way="extracted"} 0`, `strata_layers_total{way="shared"} 0`,
		`strata_store_lookups_total{result="missed"} 0`, "go_goroutines", "process_open_fds",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in:\n%s", want, got)
		}
	}
}

func TestMetricsOverTCP(t *testing.T) {
	m := newMetrics()
	s, err := serveMetrics(t.Context(), "127.0.0.1:0", "", m)
	must(t, err)
	address := s.listener.Addr().String()
	m.isSlow(prepareMethod)
	if got := scrape(t, "tcp", address); !strings.Contains(got, `strata_calls_slow{method="Prepare"} 1`) {
		t.Error(got)
	}
	if _, err := serveMetrics(t.Context(), address, "", m); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an address that is taken: %v", err)
	}
	must(t, s.Close())
}
