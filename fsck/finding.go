// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"

	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// Severity says what a finding means for those who use the root.
type Severity string

const (
	// Damage makes a call fail or answer wrongly, now or later.
	Damage Severity = "damage"
	// Leftover is what a crash left: it takes space, or the next start sees to it.
	Leftover Severity = "leftover"
	// Hint is worth knowing, and nothing is wrong.
	Hint Severity = "hint"
)

// Code names a kind of finding. Codes are stable: they are in docs/fsck.md.
type Code string

// Subject is what a finding is about. Fields that do not apply are empty.
type Subject struct {
	Snapshot string `json:"snapshot,omitempty"` // name or key
	Number   uint64 `json:"number,omitempty"`   // of the snapshot or layer
	DiffID   string `json:"diffID,omitempty"`
	Path     string `json:"path,omitempty"` // absolute
}

// Finding is one thing that is not as it should be.
type Finding struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	Subject  Subject  `json:"subject"`
	Message  string   `json:"message"`
	// Advice is what to do about it.
	Advice string `json:"advice"`
	// Affected are the names of all snapshots that stand on what is damaged.
	Affected []string `json:"affected,omitempty"`
	// Plan is what Repair does about it. Empty: it can't.
	Plan []Action `json:"plan,omitempty"`
}

// Action is a step of a repair.
type Action struct {
	Text string `json:"text"`

	fixes []metadata.Fix // all of them go into one transaction, before anything else
	do    func(context.Context, *layerstore.Inspector) error
}

func inDatabase(text string, fixes ...metadata.Fix) Action { return Action{Text: text, fixes: fixes} }

func onDisk(text string, do func(context.Context, *layerstore.Inspector) error) Action {
	return Action{Text: text, do: do}
}

// Report is what Check or Repair found and did.
type Report struct {
	Root     string    `json:"root"`
	Findings []Finding `json:"findings"`
	// Repaired are the findings that are gone, of Repair.
	Repaired []Finding `json:"repaired,omitempty"`
	// Rebuilt is what Rebuild did, or would do.
	Rebuilt *Rebuilt `json:"rebuilt,omitempty"`
}

// Worst returns the highest severity among what is left, and "" if nothing is.
func (r *Report) Worst() Severity {
	worst := Severity("")
	rank := map[Severity]int{"": 0, Hint: 1, Leftover: 2, Damage: 3}
	for _, f := range r.Findings {
		if rank[f.Severity] > rank[worst] {
			worst = f.Severity
		}
	}
	return worst
}

// Exit codes, in the manner of fsck(8).
const (
	ExitClean      = 0 // nothing, or hints only
	ExitRepaired   = 1 // all that was found is repaired
	ExitLeftovers  = 2 // leftovers are left, and no damage
	ExitDamage     = 4 // damage is left
	ExitNotChecked = 8 // the root could not be checked, or a repair failed
	ExitUsage      = 16
)

// ExitCode is the exit code that a program should end with after a check or a repair.
func (r *Report) ExitCode() int {
	switch worst := r.Worst(); {
	case worst == Damage:
		return ExitDamage
	case worst == Leftover:
		return ExitLeftovers
	case len(r.Repaired) > 0, r.Rebuilt != nil:
		return ExitRepaired
	}
	return ExitClean
}
