// SPDX-License-Identifier: Apache-2.0

package main

import "regexp"

// unpacks is how many layers are extracted at once where that is more than one: as in
// the configuration that the documentation suggests.
const unpacks = 3

// mode is what survives a power loss.
type mode struct {
	name       string
	durability string // of Strata's configuration
	syncFS     bool   // containerd's
}

// modes are in the order in which they are measured: those of one durability of
// Strata's share a daemon.
var modes = []mode{
	{name: "off", durability: "none"},
	{name: "on", durability: "commit", syncFS: true},
	{name: "asis", durability: "commit"},
}

// scenario is one row of the result.
type scenario struct {
	Name     string
	mode     mode
	format   string
	layers   []string
	parallel bool
	goal     float64 // least median ratio, of the real corpus; 0 is none
	bytes    int64   // of its layers, uncompressed; known once it is run
}

// row is a scenario in all its modes.
type row struct {
	name     string
	words    []string
	parallel bool
	// goals are for gz off, gz on, gz asis, zst.
	off, on, asis, zst float64
}

var rows = []row{
	{name: "whole-seq", words: []string{"a", "b", "c", "d"}, off: 3.3, on: 2.5, asis: 2, zst: 2},
	{name: "whole-par", words: []string{"a", "b", "c", "d"}, parallel: true, off: 3, on: 2.5, zst: 2},
	{name: "c", words: []string{"c"}, off: 3.3, on: 2.5, zst: 2},
	{name: "a", words: []string{"a"}, off: 3, on: 2.5, zst: 2},
	{name: "d", words: []string{"d"}, off: 3, on: 2.5, zst: 2},
	{name: "b", words: []string{"b"}, off: 2.3, on: 1.8, zst: 2},
	{name: "e", words: []string{"e"}, off: 2.3, on: 1.8, zst: 1},
	{name: "small", words: []string{"a", "f"}, off: 2.5, on: 2.5, zst: 2},
}

// goal is what is asked for of the real corpus on two cores, or nothing.
func (r row) goal(m mode, format string) (goal float64, measured bool) {
	switch {
	case m.name == "asis":
		return r.asis, format == "gz" && r.asis > 0
	case format == "zst":
		return r.zst, true
	case m.name == "on":
		return r.on, true
	default:
		return r.off, true
	}
}

// scenarios are those that the corpus has the layers for and whose name matches.
func (c *corpus) scenarios(match *regexp.Regexp) []scenario {
	var all []scenario
	for _, m := range modes {
		for _, format := range []string{"gz", "zst"} {
			for _, r := range rows {
				goal, measured := r.goal(m, format)
				name := r.name + "/" + format + "/" + m.name
				layers := c.names(r.words, format)
				if !measured || !match.MatchString(name) || len(layers) == 0 {
					continue
				}
				if c.generated() {
					goal = 0
				}
				all = append(all, scenario{Name: name, mode: m, format: format, layers: layers, parallel: r.parallel, goal: goal})
			}
		}
	}
	return all
}
