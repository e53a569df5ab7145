// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"
)

// result is what was found out about a scenario.
type result struct {
	scenario    scenario
	samples     [2][]sample // containerd's and Strata's, pair by pair
	Differences []string
	Known       []string
	err         error
}

func (r *result) fail(err error) { r.err = err }

// spread is what is told of several values.
type spread struct{ Min, Median, Max float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{v[0], (v[(n-1)/2] + v[n/2]) / 2, v[n-1]}
}

func (r *result) each(side int, value func(sample) float64) []float64 {
	values := make([]float64, 0, len(r.samples[side]))
	for _, s := range r.samples[side] {
		values = append(values, value(s))
	}
	return values
}

// ratios are how many times faster Strata was, pair by pair.
func (r *result) ratios() []float64 {
	theirs, ours := r.each(0, wallMS), r.each(1, wallMS)
	values := make([]float64, len(ours))
	for i := range ours {
		values[i] = theirs[i] / ours[i]
	}
	return values
}

func wallMS(s sample) float64     { return float64(s.Wall) / float64(time.Millisecond) }
func cpuSeconds(s sample) float64 { return s.CPU.Seconds() }
func peakMiB(s sample) float64    { return float64(s.Peak) / (1 << 20) }

// sideJSON and the next are the form of the file that -json writes.
type sideJSON struct {
	WallMS     spread
	CPUSeconds spread
	PeakMiB    spread
	Runs       []runJSON
}

type runJSON struct{ WallMS, CPUSeconds, PeakMiB float64 }

type resultJSON struct {
	Name               string
	Containerd, Strata sideJSON
	Ratio              spread
	Goal               float64  `json:",omitempty"`
	Differences        []string `json:",omitempty"`
	KnownDifferences   []string `json:",omitempty"`
	Error              string   `json:",omitempty"`
}

func (r *result) side(i int) sideJSON {
	s := sideJSON{
		WallMS:     spreadOf(r.each(i, wallMS)),
		CPUSeconds: spreadOf(r.each(i, cpuSeconds)),
		PeakMiB:    spreadOf(r.each(i, peakMiB)),
	}
	for _, run := range r.samples[i] {
		s.Runs = append(s.Runs, runJSON{wallMS(run), cpuSeconds(run), peakMiB(run)})
	}
	return s
}

func (r *result) json() resultJSON {
	j := resultJSON{
		Name: r.scenario.Name, Containerd: r.side(0), Strata: r.side(1), Ratio: spreadOf(r.ratios()),
		Goal: r.scenario.goal, Differences: r.Differences, KnownDifferences: r.Known,
	}
	if r.err != nil {
		j.Error = r.err.Error()
	}
	return j
}

// report prints results as they come and keeps them for the file.
type report struct {
	out    io.Writer
	o      options
	failed bool
	// The fields below are written to the file.
	Corpus, FileSystem, Load string
	CPUs, Pairs              int
	Results                  []resultJSON
}

func newReport(o options, out io.Writer) *report {
	r := &report{out: out, o: o, Corpus: o.corpus, FileSystem: o.fstype, Load: loadAverage(), CPUs: runtime.NumCPU(), Pairs: o.pairs}
	fmt.Fprintf(out, "corpus %s, %s, %d CPUs (load %s), %d pairs; min/median/max\n", r.Corpus, r.FileSystem, r.CPUs, r.Load, r.Pairs)
	fmt.Fprintf(out, "%-17s %-20s %-20s %-16s %4s  %-11s %-11s %s\n", "scenario", "containerd ms", "strata ms", "ratio", "goal",
		"CPU s c/s", "MiB c/s", "trees")
	return r
}

func (r *report) add(result *result) {
	j := result.json()
	r.Results = append(r.Results, j)
	if j.Error != "" || len(j.Differences) > 0 {
		r.failed = true
	}
	if j.Error != "" {
		fmt.Fprintf(r.out, "%-17s FAILED: %s\n", j.Name, j.Error)
		return
	}
	c, s := j.Containerd, j.Strata
	fmt.Fprintf(r.out, "%-17s %-20s %-20s %-16s %4s  %-11s %-11s %s\n", j.Name, c.WallMS.text("%.0f"), s.WallMS.text("%.0f"),
		j.Ratio.text("%.2f"), goalText(j), fmt.Sprintf("%.1f/%.1f", c.CPUSeconds.Median, s.CPUSeconds.Median),
		fmt.Sprintf("%.0f/%.0f", c.PeakMiB.Max, s.PeakMiB.Max), verdict(j))
	const most = 20
	for i, line := range j.Differences {
		if i == most {
			fmt.Fprintf(r.out, "    and %d more\n", len(j.Differences)-most)
			break
		}
		fmt.Fprintf(r.out, "    %s\n", line)
	}
}

func (s spread) text(format string) string {
	return fmt.Sprintf(format+"/"+format+"/"+format, s.Min, s.Median, s.Max)
}

func goalText(j resultJSON) string {
	switch {
	case j.Goal == 0:
		return ""
	case j.Ratio.Median < j.Goal:
		return fmt.Sprintf("<%.1f", j.Goal)
	default:
		return fmt.Sprintf("%.1f", j.Goal)
	}
}

func verdict(j resultJSON) string {
	text := "equal"
	if n := len(j.Differences); n > 0 {
		text = fmt.Sprintf("%d DIFFERENCES", n)
	}
	if n := len(j.KnownDifferences); n > 0 {
		text += fmt.Sprintf(" (%d known)", n)
	}
	return text
}

func (r *report) finish() error {
	fmt.Fprintln(r.out, "load at the end", loadAverage())
	if r.o.json != "" {
		data, err := json.MarshalIndent(r, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(r.o.json, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if r.failed {
		return errDifferences
	}
	return nil
}
