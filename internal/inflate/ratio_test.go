// SPDX-License-Identifier: Apache-2.0

package inflate

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"
)

// BenchmarkRatio runs both inflaters by turns, which a shared machine's noise hits
// alike, and reports how many times less processor time than klauspost's gzip reader
// Own takes:
//
//	go test -run '^$' -bench Ratio -benchtime 11x ./internal/inflate
func BenchmarkRatio(b *testing.B) {
	for name, dir := range benchTrees() {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		b.Run(name, func(b *testing.B) {
			data := tree(b, dir, benchLimit)
			blob := gzipped(b, data)
			var ratios, speeds []float64
			for b.Loop() {
				own := timed(b, func() error { return drain(Open(bytes.NewReader(blob), Gzip, Options{})) })
				other := timed(b, func() error {
					z, err := gzip.NewReader(bytes.NewReader(blob))
					return copyOut(z, err)
				})
				ratios = append(ratios, float64(other)/float64(own))
				speeds = append(speeds, float64(len(data))/1e6/own.Seconds())
			}
			slices.Sort(ratios)
			slices.Sort(speeds)
			b.ReportMetric(ratios[0], "min")
			b.ReportMetric(ratios[len(ratios)/2], "median")
			b.ReportMetric(ratios[len(ratios)-1], "max")
			b.ReportMetric(speeds[len(speeds)/2], "MB/s-own")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// timed is the processor time f takes, which does not count waiting for a processor.
func timed(b *testing.B, f func() error) time.Duration {
	b.Helper()
	start := cpu(b)
	if err := f(); err != nil {
		b.Fatal(fmt.Errorf("decode: %w", err))
	}
	return cpu(b) - start
}

func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
