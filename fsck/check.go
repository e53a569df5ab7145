// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/layerindex"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// Options say what is checked.
type Options struct {
	// Root is the absolute path of the root.
	Root string
	// Aliases are other paths of it, which mount options may name.
	Aliases []string
	// Usage also measures every layer: that takes time in proportion to the number of
	// files.
	Usage bool
	// Data also holds the files of every layer against its index: that reads all of
	// them.
	Data bool
	// Pace, if set, slows Data down.
	Pace layerindex.Pace
}

// Check looks a root over and changes nothing in it but the file lock.
//
// ErrNotFound: there is no root. ErrUnavailable: a daemon uses it; it is named.
// ErrFailedPrecondition: a newer Strata wrote it.
func Check(ctx context.Context, opts Options) (r *Report, err error) {
	dir, err := layerstore.Inspect(opts.Root)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return check(ctx, opts, dir)
}

func check(ctx context.Context, opts Options, dir *layerstore.Inspector) (*Report, error) {
	c := &checker{opts: opts, dir: dir, report: &Report{Root: opts.Root, Findings: []Finding{}}}
	var err error
	if c.survey, err = dir.Survey(); err != nil {
		return nil, err
	}
	if c.used, err = mountsOf(append([]string{opts.Root}, opts.Aliases...)); err != nil {
		return nil, err
	}
	c.layout()
	if err := c.openDatabase(); err != nil || c.db == nil {
		return c.report, err
	}
	c.roles = rolesOf(c.db)
	c.database()
	c.numbers()
	if err := c.layers(ctx); err != nil {
		return nil, err
	}
	c.external()
	c.snapshots()
	c.orphans()
	c.mounts()
	return c.report, ctx.Err()
}

type checker struct {
	opts   Options
	dir    *layerstore.Inspector
	survey *layerstore.Survey
	db     *metadata.Contents
	used   uses
	roles  roles
	report *Report
}

// roles are what snapshots want of layers, by the numbers of those.
type roles struct{ named, patch, staged map[uint64]bool }

func rolesOf(db *metadata.Contents) roles {
	r := roles{named: map[uint64]bool{}, patch: map[uint64]bool{}, staged: map[uint64]bool{}}
	for _, sn := range db.Snapshots {
		r.named[sn.Layer], r.named[sn.Patch], r.patch[sn.Patch] = true, true, true
		if sn.Kind == snapshots.KindActive {
			r.staged[sn.Layer] = true
		}
	}
	return r
}

// openDatabase reads metadata.db. Without it there are no further checks: everything
// would be an orphan.
func (c *checker) openDatabase() (err error) {
	c.db, err = metadata.Inspect(c.dir.DatabasePath())
	subject := Subject{Path: c.dir.DatabasePath()}
	switch {
	case errdefs.IsNotFound(err):
		if len(c.survey.Layers)+len(c.survey.Snapshots) > 0 {
			c.add(CodeDBMissing, subject, err.Error())
		}
		return nil
	case errdefs.IsDataLoss(err):
		c.add(CodeDBUnreadable, subject, err.Error())
		return nil
	}
	return err
}

func (c *checker) add(code Code, subject Subject, message string, plan ...Action) *Finding {
	r := rules[code]
	f := Finding{Code: code, Severity: r.severity, Subject: subject, Message: message, Advice: r.advice, Plan: plan}
	if len(plan) == 0 && r.severity == Damage && strings.HasPrefix(f.Advice, adviseRepair) {
		f.Advice = advisePull
	}
	c.report.Findings = append(c.report.Findings, f)
	return &c.report.Findings[len(c.report.Findings)-1]
}

// aboutLayer is a finding about layer n, with all snapshots that stand on it if it can't
// be repaired.
func (c *checker) aboutLayer(code Code, n uint64, message string, plan ...Action) {
	subject := Subject{Number: n, Path: c.path("layers", n)}
	if c.db != nil {
		subject.DiffID = c.db.Layers[n].DiffID.String()
	}
	f := c.add(code, subject, message, plan...)
	if len(plan) == 0 && f.Severity == Damage {
		f.Affected = c.standingOn(n)
	}
}

// standingOn returns the names of all snapshots that have layer n in their chain.
func (c *checker) standingOn(n uint64) []string {
	memo := map[uint64]bool{}
	var on func(number uint64) bool
	on = func(number uint64) bool {
		sn, ok := c.db.Snapshots[number]
		if !ok {
			return false
		}
		if yes, seen := memo[number]; seen {
			return yes
		}
		memo[number] = false // ends circles
		memo[number] = sn.Layer == n || sn.Patch == n || on(sn.ParentNumber)
		return memo[number]
	}
	var names []string
	for _, number := range sortedKeys(c.db.Snapshots) {
		if on(number) {
			names = append(names, c.db.Snapshots[number].Name)
		}
	}
	return names
}

func sortedKeys[V any](m map[uint64]V) []uint64 { return slices.Sorted(maps.Keys(m)) }
