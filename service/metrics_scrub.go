// SPDX-License-Identifier: Apache-2.0

package service

import "github.com/prometheus/client_golang/prometheus"

// scrubCollector reads the counters of a Scrub when it is asked; of none, it says 0.
type scrubCollector struct{ of *Scrub }

var (
	scrubRoundsDesc  = prometheus.NewDesc("strata_scrub_rounds_total", "Times that all layers were checked in the background.", nil, nil)
	scrubLayersDesc  = prometheus.NewDesc("strata_scrub_layers_total", "Layers that were come to by that, by result.", []string{"result"}, nil)
	scrubBytesDesc   = prometheus.NewDesc("strata_scrub_read_bytes_total", "Bytes of content that were read for it.", nil, nil)
	scrubDamagedDesc = prometheus.NewDesc("strata_scrub_damaged_layers", "Layers that are known to be damaged; the log names them.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c scrubCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{scrubRoundsDesc, scrubLayersDesc, scrubBytesDesc, scrubDamagedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c scrubCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.of.Stats()
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	count(scrubRoundsDesc, s.Rounds)
	for result, n := range map[string]int64{"checked": s.Layers, "unindexed": s.Unindexed, "failed": s.Failed} {
		count(scrubLayersDesc, n, result)
	}
	count(scrubBytesDesc, s.Bytes)
	ch <- prometheus.MustNewConstMetric(scrubDamagedDesc, prometheus.GaugeValue, float64(s.Damaged))
}
