// SPDX-License-Identifier: Apache-2.0

package service

import (
	"path"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/status"

	"github.com/strata-snapshotter/strata/snapshotter"
)

// metrics is what is counted of calls, and where others register what they count.
type metrics struct {
	registry *prometheus.Registry
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	slow     *prometheus.GaugeVec
	slowAll  *prometheus.CounterVec
}

const (
	labelMethod = "method"
	labelCode   = "code"
)

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "strata_calls_total", Help: "Calls that were answered, by method and gRPC code.",
		}, []string{labelMethod, labelCode}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "strata_call_duration_seconds", Help: "How long calls took until they were answered.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 11), // to 105 seconds
		}, []string{labelMethod}),
		slow: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "strata_calls_slow", Help: "Calls that are under way for more than 10 seconds.",
		}, []string{labelMethod}),
		slowAll: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "strata_calls_slow_total", Help: "Calls that took more than 10 seconds.",
		}, []string{labelMethod}),
	}
	m.registry.MustRegister(m.calls, m.duration, m.slow, m.slowAll, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// register adds what another part counts. What is registered twice, or under a name that
// is taken, is a mistake of the program.
func (m *metrics) register(cs ...prometheus.Collector) { m.registry.MustRegister(cs...) }

// The methods of an observer.

func (m *metrics) ended(method string, err error, took time.Duration) {
	method = path.Base(method)
	m.calls.WithLabelValues(method, status.Code(errgrpc.ToGRPC(err)).String()).Inc()
	m.duration.WithLabelValues(method).Observe(took.Seconds())
}

func (m *metrics) isSlow(method string) {
	m.slow.WithLabelValues(path.Base(method)).Inc()
	m.slowAll.WithLabelValues(path.Base(method)).Inc()
}

func (m *metrics) slowEnded(method string) { m.slow.WithLabelValues(path.Base(method)).Dec() }

// leftCollector tells how many calls go on without a caller.
func leftCollector(cs *calls) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "strata_calls_left", Help: "Calls that go on though their callers are gone. At 64 no further calls are taken.",
	}, func() float64 {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		return float64(len(cs.left))
	})
}

// statser is a snapshotter of ours.
type statser interface{ Stats() snapshotter.Stats }

// layerCollector reads the counts of a snapshotter when it is asked.
type layerCollector struct{ of statser }

var (
	layersDesc = prometheus.NewDesc("strata_layers_total",
		"Layers that were to be extracted, by what became of them: extracted, extracted before they were asked for (ahead), or given one that was there by Prepare (shared, staged) or by Apply or Commit (adopted).", []string{"way"}, nil)
	droppedDesc = prometheus.NewDesc("strata_ahead_dropped_total", "Layers that were extracted before they were asked for, and then were not.", nil, nil)
	bytesDesc   = prometheus.NewDesc("strata_extracted_bytes_total", "Uncompressed bytes of the layers that were extracted.", nil, nil)
	trashDesc   = prometheus.NewDesc("strata_trash_pending", "Removed directories that are not deleted yet.", nil, nil)
	lookupsDesc = prometheus.NewDesc("strata_store_lookups_total", "Layers looked for in additional stores, by result.", []string{"result"}, nil)
	skippedDesc = prometheus.NewDesc("strata_store_skipped_total", "Additional stores and layers of theirs that could not be used, by reason.", []string{"reason"}, nil)
)

// newLayerCollector returns nil for a snapshotter of somebody else.
func newLayerCollector(sn snapshots.Snapshotter) prometheus.Collector {
	if of, ok := sn.(statser); ok {
		return &layerCollector{of}
	}
	return nil
}

// Describe implements prometheus.Collector.
func (c *layerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{layersDesc, droppedDesc, bytesDesc, trashDesc, lookupsDesc, skippedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *layerCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.of.Stats()
	count := func(d *prometheus.Desc, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, n, labels...)
	}
	for way, n := range map[string]int64{"extracted": s.Extracted, "shared": s.Shared, "staged": s.Staged, "adopted": s.Adopted, "ahead": s.Ahead} {
		count(layersDesc, float64(n), way)
	}
	count(droppedDesc, float64(s.AheadDropped))
	count(bytesDesc, float64(s.ExtractedBytes))
	ch <- prometheus.MustNewConstMetric(trashDesc, prometheus.GaugeValue, float64(s.TrashPending))
	count(lookupsDesc, float64(s.Stores.Found), "found")
	count(lookupsDesc, float64(s.Stores.Missed), "missed")
	for reason, n := range s.Stores.Skipped {
		count(skippedDesc, float64(n), string(reason))
	}
}
