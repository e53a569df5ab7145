// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"errors"
	"fmt"

	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// maxPasses bounds how often Repair looks again: a repair can bring up another finding,
// as a record that is deleted leaves an orphan.
const maxPasses = 5

// Repair checks, shows approve what it found, with the plans, and does what they say if
// approve agrees. It goes on until there is nothing left that it can do. A dry run is an
// approve that says no: all else is the same.
//
// metadata.db comes first, then the directories: a crash in between leaves what the next
// repair, or start, finds. Errors are those of Check, and ErrResourceExhausted where
// there is no space; what was done until then stays.
func Repair(ctx context.Context, opts Options, approve func(*Report) bool) (r *Report, err error) {
	dir, err := layerstore.Inspect(opts.Root)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	var repaired []Finding
	opts.failed = map[uint64]string{}
	for range maxPasses {
		if r, err = check(ctx, opts, dir); err != nil {
			return nil, err
		}
		repaired = dropLeft(repaired, r.Findings)
		r.Repaired = repaired
		if !hasPlan(r.Findings) || !approve(r) {
			return r, nil
		}
		if err := apply(ctx, dir, r.Findings); err != nil {
			return r, err
		}
		for _, f := range r.Findings {
			if len(f.Plan) > 0 {
				repaired = append(repaired, f)
			}
		}
	}
	if r, err = check(ctx, opts, dir); err != nil {
		return nil, err
	}
	r.Repaired = dropLeft(repaired, r.Findings)
	return r, nil
}

// dropLeft returns those of the findings that are not among what is left.
func dropLeft(findings, left []Finding) []Finding {
	var gone []Finding
	for _, f := range findings {
		still := false
		for _, l := range left {
			still = still || l.Code == f.Code && l.Subject == f.Subject
		}
		if !still {
			gone = append(gone, f)
		}
	}
	return gone
}

func hasPlan(findings []Finding) bool {
	for _, f := range findings {
		if len(f.Plan) > 0 {
			return true
		}
	}
	return false
}

func apply(ctx context.Context, dir *layerstore.Inspector, findings []Finding) error {
	var fixes []metadata.Fix
	var steps []Action
	last, seen := Action{}, map[string]bool{}
	for _, f := range findings {
		for _, a := range f.Plan {
			fixes = append(fixes, a.fixes...)
			switch {
			case a.Text == emptyTheTrash:
				last = a
			case a.do != nil && !seen[a.Text]: // several findings can have one plan
				steps = append(steps, a)
				seen[a.Text] = true
			}
		}
	}
	if len(fixes) > 0 {
		if err := metadata.ApplyFixes(dir.DatabasePath(), fixes); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
	}
	if last.do != nil {
		steps = append(steps, last)
	}
	for _, a := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := a.do(ctx, dir); err != nil {
			return fmt.Errorf("repair: %s: %w", a.Text, err)
		}
	}
	return nil
}
