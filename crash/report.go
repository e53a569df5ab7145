// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
)

// firstFindings is how many findings of a run are written out.
const firstFindings = 5

// report is what came of a run.
type report struct {
	Seed uint64
	FS   string
	Kind string // cut, kill or stop
	When string // commit, later or middle
	// Waited is, in milliseconds, from the start or from the last Commit.
	Waited  int64
	Commits int // that were answered before it happened
	Removes int
	// Listed committed snapshots afterwards, and how many of their Commits were not answered.
	Listed, Unanswered int
	Entries            int // compared
	Milliseconds       int64
	Findings           map[string]int `json:",omitempty"`
	First              []string       `json:",omitempty"`

	mu sync.Mutex
}

// The kinds of findings.
const (
	missing  = "missing"  // an entry of a listed snapshot
	empty    = "empty"    // a file that had content
	short    = "short"    // a file of another length
	corrupt  = "corrupt"  // a file of the right length
	metadata = "metadata" // mode, owner, time, attribute, link or type of an entry
	extra    = "extra"    // an entry that nobody made
	lost     = "lost"     // a snapshot that was answered for
	risen    = "risen"    // a snapshot whose removal was answered, or that nobody asked for
	torn     = "torn"     // a Commit that is neither done nor undone, or both
	orphan   = "orphan"   // a directory that nothing names after a Cleanup
	start    = "start"    // the daemon does not start again
	unsound  = "unsound"  // something that fsck finds
	failure  = "failure"  // a call that should have succeeded did not
)

// found notes a finding. It may be called by all clients.
func (r *report) found(kind, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Findings == nil {
		r.Findings = map[string]int{}
	}
	r.Findings[kind]++
	if len(r.First) < firstFindings {
		r.First = append(r.First, kind+": "+fmt.Sprintf(format, args...))
	}
}

// compared counts entries. It may be called side by side.
func (r *report) compared(entries int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Entries += entries
}

// difference notes what is wrong with an entry, as layertest.Tree.Diff says it.
func (r *report) difference(snapshot, line string) {
	_, rest, _ := strings.Cut(line, ": want ")
	want, got, _ := strings.Cut(rest, " | got ")
	r.found(classify(want, got), "%s: %s", snapshot, line)
}

const absent = "(absent)"

// classify tells the kinds of differences apart by the content, which comes first.
func classify(want, got string) string {
	wantData, wantFile := fileData(want)
	gotData, gotFile := fileData(got)
	switch {
	case got == absent:
		return missing
	case want == absent:
		return extra
	case !wantFile || !gotFile || wantData == gotData:
		return metadata
	case gotData == `""`:
		return empty
	case length(wantData) == length(gotData):
		return corrupt
	}
	return short
}

// fileData is what stands in file[...].
func fileData(line string) (data string, ok bool) {
	rest, ok := strings.CutPrefix(line, "file[")
	data, _, _ = strings.Cut(rest, "] ")
	return data, ok
}

// length is that of a file: large ones are given as "N bytes, SHA256".
func length(data string) string {
	if n, _, ok := strings.Cut(data, " bytes, "); ok {
		return n
	}
	return fmt.Sprint(len(data) - len(`""`))
}

// total sums all runs up.
type total struct {
	Runs       map[string]int
	Commits    int
	Removes    int
	Listed     int
	Unanswered int
	Entries    int
	Findings   map[string]int
	Bad        []uint64 `json:",omitempty"` // seeds of runs with findings
}

func newTotal() *total { return &total{Runs: map[string]int{}, Findings: map[string]int{}} }

func (t *total) add(r *report) {
	t.Runs[r.Kind+" "+r.When]++
	t.Commits += r.Commits
	t.Removes += r.Removes
	t.Listed += r.Listed
	t.Unanswered += r.Unanswered
	t.Entries += r.Entries
	for kind, n := range r.Findings {
		t.Findings[kind] += n
	}
	if len(r.Findings) > 0 {
		t.Bad = append(t.Bad, r.Seed)
	}
}

// verdict is nil if what came out is what should.
func (t *total) verdict(prove bool) error {
	if !prove && len(t.Bad) > 0 {
		return errFindings
	}
	damaged := 0
	for _, kind := range []string{missing, empty, short, corrupt, metadata, lost, start} {
		damaged += t.Findings[kind]
	}
	if prove && damaged == 0 {
		return errors.New("nothing was lost without durability: this command would not notice a loss")
	}
	return nil
}
