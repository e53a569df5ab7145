// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync"
)

// report is what came of it all.
type report struct {
	Seed        uint64
	Seconds     int
	Operations  map[string]int
	Events      map[string]int
	Interrupted int // operations that were tried again after a restart
	Conflicts   int // and those after another client's collection
	Entries     int // that were compared
	// Warm and End are of the daemon: after it was warm, and after everything was removed.
	Warm, End sample
	Findings  []string `json:",omitempty"`

	mu sync.Mutex
}

func newReport(seed uint64) *report {
	return &report{Seed: seed, Operations: map[string]int{}, Events: map[string]int{}}
}

// locked lets do change the report.
func (r *report) locked(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

func (r *report) did(kind string)    { r.locked(func() { r.Operations[kind]++ }) }
func (r *report) happened(e string)  { r.locked(func() { r.Events[e]++ }) }
func (r *report) interrupted()       { r.locked(func() { r.Interrupted++ }) }
func (r *report) conflict()          { r.locked(func() { r.Conflicts++ }) }
func (r *report) compared(paths int) { r.locked(func() { r.Entries += paths }) }
func (r *report) failed() (yes bool) { r.locked(func() { yes = len(r.Findings) > 0 }); return yes }

// found notes a finding.
func (r *report) found(format string, args ...any) {
	r.locked(func() { r.Findings = append(r.Findings, fmt.Sprintf(format, args...)) })
}

// problem notes an error as a finding.
func (r *report) problem(what string, err error) {
	if err != nil {
		r.found("%s: %v", what, err)
	}
}
