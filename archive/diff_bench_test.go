// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	ctdarchive "github.com/containerd/containerd/v2/pkg/archive"
)

// The image of the benchmarks: 90,000 files, about as many as the node
// application that commits were measured with.
const (
	diffBenchDirs  = 900
	diffBenchFiles = 100
)

func diffBenchBase(b *testing.B) func(root string) {
	return func(root string) {
		for i := range diffBenchDirs {
			dir := filepath.Join(root, fmt.Sprintf("usr/lib/%02d/%03d", i%30, i))
			diffMust(b, os.MkdirAll(dir, 0o755))
			for j := range diffBenchFiles {
				diffMust(b, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%02d.js", j)), bytes.Repeat([]byte("x"), 100+j*20), 0o644))
			}
		}
	}
}

// BenchmarkDiffTenFiles is a commit of ten changed files. It reports how many
// times longer containerd's walking differ takes over the same mounts.
func BenchmarkDiffTenFiles(b *testing.B) {
	s := newDiffStack(b, nil, diffBenchBase(b))
	f := diffFS{b, s.merged}
	for i := range 10 {
		f.write(fmt.Sprintf("usr/lib/%02d/%03d/file%02d.js", i, 30*i+i, i), "changed")
	}
	benchRatio(b, s.upper, s.parent, s.parent, s.merged)
}

// BenchmarkDiffFirstLayer is a whole image in one layer, with nothing below it.
func BenchmarkDiffFirstLayer(b *testing.B) {
	s := newBareStack(b)
	diffBenchBase(b)(s.upper)
	benchRatio(b, s.upper, "", s.parent, s.upper)
}

// benchRatio takes turns with containerd, three of its own at most.
func benchRatio(b *testing.B, upper, parent, lower, merged string) {
	up := Upper{Dir: diffOpen(b, upper)}
	if parent != "" {
		up.Parent = diffOpen(b, parent)
	}
	var ours, theirs, times, theirTimes time.Duration
	for b.Loop() {
		start := time.Now()
		_, err := Diff(b.Context(), io.Discard, up, DiffOptions{})
		diffMust(b, err)
		ours, times = ours+time.Since(start), times+1
		if theirTimes < 3 {
			b.StopTimer()
			start = time.Now()
			diffMust(b, ctdarchive.WriteDiff(b.Context(), sha256.New(), lower, merged))
			theirs, theirTimes = theirs+time.Since(start), theirTimes+1
			b.StartTimer()
		}
	}
	mean, theirMean := ours/times, theirs/theirTimes
	b.ReportMetric(float64(theirMean.Microseconds())/1000, "containerd-ms")
	b.ReportMetric(float64(theirMean)/float64(mean), "times-faster")
}
