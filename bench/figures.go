// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// figure is something that both sides were measured by: a line of the result.
type figure struct {
	name     string
	unit     string
	values   [2][]float64 // containerd's and Strata's, run by run
	goal     goal
	note     string
	failures []string // what must not be, whatever the machine
}

// perSecond is the unit of which more is better; of all others less is.
const perSecond = "1/s"

// goal is what is asked for, or nothing.
type goal struct {
	of    goalOf
	limit float64
}

type goalOf int

const (
	noGoal       goalOf = iota
	ratioAtLeast        // how many times better Strata is
	strataAtMost        // its own figure
)

func (g goal) String() string {
	switch g.of {
	case ratioAtLeast:
		return "ratio >= " + number(g.limit)
	case strataAtMost:
		return "strata <= " + number(g.limit)
	default:
		return ""
	}
}

// ratios are how many times better Strata was, run by run.
func (f figure) ratios() []float64 {
	theirs, ours := f.values[0], f.values[1]
	if f.unit == perSecond {
		theirs, ours = ours, theirs
	}
	var ratios []float64
	for i := range min(len(theirs), len(ours)) {
		if ours[i] > 0 {
			ratios = append(ratios, theirs[i]/ours[i])
		}
	}
	return ratios
}

// missed says how the figure stands to a goal that it does not reach.
func (f figure) missed() (relation string, missed bool) {
	switch {
	case f.goal.of == ratioAtLeast && spreadOf(f.ratios()).Median < f.goal.limit:
		return "<", true
	case f.goal.of == strataAtMost && spreadOf(f.values[1]).Median > f.goal.limit:
		return ">", true
	default:
		return "", false
	}
}

// figureJSON is the form of a figure in the file that -json writes.
type figureJSON struct {
	Name, Unit         string
	Containerd, Strata figureSide
	Ratio              spread
	Goal               string   `json:",omitempty"`
	Missed             bool     `json:",omitempty"`
	Note               string   `json:",omitempty"`
	Failures           []string `json:",omitempty"`
}

type figureSide struct {
	spread
	Runs []float64
}

func (f figure) json() figureJSON {
	_, missed := f.missed()
	j := figureJSON{
		Name: f.name, Unit: f.unit, Ratio: spreadOf(f.ratios()), Goal: f.goal.String(), Missed: missed,
		Note: f.note, Failures: f.failures,
	}
	for i, side := range []*figureSide{&j.Containerd, &j.Strata} {
		side.spread, side.Runs = spreadOf(f.values[i]), f.values[i]
	}
	return j
}

// figures prints figures as they come and keeps them for the file.
type figures struct {
	out    io.Writer
	o      options
	failed bool
	// The fields below are written to the file.
	Corpus, FileSystem, Load, Durability string
	CPUs, Pairs                          int
	Quick                                bool
	Figures                              []figureJSON
}

const figureFormat = "%-30s %-4s %-20s %-20s %-16s %-6s %s\n"

func newFigures(o options, out io.Writer) *figures {
	f := &figures{
		out: out, o: o, Corpus: o.corpus, FileSystem: o.fstype, Load: loadAverage(),
		CPUs: runtime.NumCPU(), Pairs: o.pairs, Quick: o.quick, Durability: o.durability,
	}
	fmt.Fprintf(out, "%s, durability %s, %d CPUs (load %s), %d pairs; min/median/max\n", f.FileSystem, f.Durability, f.CPUs, f.Load, f.Pairs)
	fmt.Fprintf(out, figureFormat, "figure", "unit", "containerd", "strata", "ratio", "goal", "")
	return f
}

func (r *figures) add(f figure) {
	j := f.json()
	r.Figures = append(r.Figures, j)
	ratio := ""
	if len(f.ratios()) > 0 {
		ratio = short(j.Ratio)
	}
	fmt.Fprintf(r.out, figureFormat, f.name, f.unit, short(j.Containerd.spread), short(j.Strata.spread), ratio, f.goalText(), f.note)
	const most = 20
	for i, line := range f.failures {
		r.failed = true
		if i == most {
			fmt.Fprintf(r.out, "    and %d more\n", len(f.failures)-most)
			break
		}
		fmt.Fprintf(r.out, "    FAILED: %s\n", line)
	}
}

// fail reports that something could not be measured.
func (r *figures) fail(name string, err error) {
	r.failed = true
	r.Figures = append(r.Figures, figureJSON{Name: name, Failures: []string{err.Error()}})
	fmt.Fprintf(r.out, "%-30s FAILED: %v\n", name, err)
}

func (f figure) goalText() string {
	if f.goal.of == noGoal {
		return ""
	}
	relation, _ := f.missed()
	return relation + number(f.goal.limit)
}

// short leaves out what says nothing.
func short(s spread) string {
	if s.Min == s.Max {
		return number(s.Median)
	}
	return strings.Join([]string{number(s.Min), number(s.Median), number(s.Max)}, "/")
}

// number has three digits, or more before the point.
func number(v float64) string {
	switch {
	case v == float64(int64(v)):
		return fmt.Sprintf("%.0f", v)
	case v < 0.1:
		return fmt.Sprintf("%.3f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

func (r *figures) finish() error {
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
