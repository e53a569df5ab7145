// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"errors"
	"slices"

	"github.com/strata-snapshotter/strata/layerstore"
)

// Prune removes what is left over in a root: it does what the plans of leftovers say, and
// touches no damage. It shows approve what it found first, as Repair does; a dry run is
// an approve that says no. The report has leftovers only.
//
// Errors are those of Repair.
func Prune(ctx context.Context, opts Options, approve func(*Report) bool) (r *Report, err error) {
	dir, err := layerstore.Inspect(opts.Root)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	var repaired []Finding
	for range maxPasses { // what is moved to the trash is found there
		if r, err = checkLeftovers(ctx, opts, dir); err != nil {
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
		repaired = append(repaired, r.Findings...)
	}
	return r, nil
}

func checkLeftovers(ctx context.Context, opts Options, dir *layerstore.Inspector) (*Report, error) {
	r, err := check(ctx, opts, dir)
	if err != nil {
		return nil, err
	}
	r.Findings = slices.DeleteFunc(r.Findings, func(f Finding) bool { return f.Severity != Leftover || len(f.Plan) == 0 })
	return r, nil
}
