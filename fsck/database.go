// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// database reports what metadata.db says against itself.
func (c *checker) database() {
	unknown := map[uint64]bool{}
	for _, p := range c.db.Problems {
		switch p.Code {
		case metadata.ProblemLayerUnknown:
			if !unknown[p.Number] { // once for all snapshots
				c.aboutLayer(Code(p.Code), p.Number, p.Text, c.recordLayer(p.Number)...)
			}
			unknown[p.Number] = true
		case metadata.ProblemLayerUnreadable:
			plan := c.recordLayer(p.Number)
			if len(p.Fixes) > 0 {
				plan = []Action{inDatabase("delete the record", p.Fixes...)}
			}
			c.aboutLayer(Code(p.Code), p.Number, p.Text, plan...)
		default:
			f := c.add(Code(p.Code), c.problemSubject(p), p.Text, problemPlan(p)...)
			if p.Code == metadata.ProblemBucketMissing && len(p.Fixes) == 0 {
				f.Advice = c.advice(adviseRebuild)
			}
		}
	}
}

func (c *checker) problemSubject(p metadata.Problem) Subject {
	s := Subject{Number: p.Number, Path: c.dir.DatabasePath()}
	switch Code(p.Code) {
	case metadata.ProblemDiffIDMissing, metadata.ProblemDiffIDWrong, metadata.ProblemDiffIDTwice, metadata.ProblemDiffIDOrphan, metadata.ProblemLayerUnreferenced:
		s.DiffID = p.Key
	case metadata.ProblemBucketMissing, metadata.ProblemBucketUnknown, metadata.ProblemIndexUnreadable:
	default:
		s.Snapshot = p.Key
	}
	return s
}

func problemPlan(p metadata.Problem) []Action {
	if len(p.Fixes) == 0 {
		return nil
	}
	what := "correct the index in metadata.db"
	if p.Code == metadata.ProblemLayerUnreferenced {
		what = fmt.Sprintf("delete the record of layer %d; its directory is then an orphan", p.Number)
	}
	return []Action{inDatabase(what, p.Fixes...)}
}

// recordLayer makes the record of a layer of its layer.json, where that can be believed.
func (c *checker) recordLayer(n uint64) []Action {
	state, ok := c.survey.Layers[n]
	if !ok || state.ManifestErr != nil || state.Manifest.Number != n || !state.Manifest.KnownFormat() {
		return nil
	}
	l := layerOf(state.Manifest)
	for _, other := range c.db.Layers {
		if l.DiffID != "" && other.DiffID == l.DiffID {
			return nil // one of two: nothing tells which one is right
		}
	}
	return []Action{inDatabase(fmt.Sprintf("record layer %d as its layer.json says", n), metadata.LayerFixes(l)...)}
}

func layerOf(m layerstore.Manifest) metadata.Layer {
	return metadata.Layer{Number: m.Number, DiffID: m.DiffID, Empty: m.Empty, OpaqueRoot: m.OpaqueRoot, Usage: usageOf(m), Created: m.Created}
}

// usageOf is what a layer takes of this disk: one of an additional store nothing.
func usageOf(m layerstore.Manifest) snapshots.Usage {
	if m.Format == layerstore.FormatExternal {
		return snapshots.Usage{}
	}
	return snapshots.Usage{Size: m.Bytes, Inodes: m.Inodes}
}

// lostMargin is how far the mark of reserved numbers is set over the highest that is
// seen, where the mark itself is lost: higher ones may have been in use.
const lostMargin = 64

// numbers wants all numbers to be below the mark: one above could be handed out again.
func (c *checker) numbers() {
	highest := uint64(0)
	note := func(numbers []uint64) {
		for _, n := range numbers {
			highest = max(highest, n)
		}
	}
	note(sortedKeys(c.db.Snapshots))
	note(sortedKeys(c.db.Layers))
	note(sortedKeys(c.survey.Layers))
	note(sortedKeys(c.survey.Snapshots))
	subject := Subject{Number: highest, Path: c.dir.DatabasePath()}
	switch {
	case c.db.ReservedUnreadable:
		c.add(CodeReservedUnreadable, subject, "up to where numbers were handed out can't be read",
			inDatabase("set the mark above all numbers that are in use", metadata.ReserveFix(highest+1+lostMargin)))
	case highest >= c.db.Reserved:
		c.add(CodeNumberUnreserved, subject, fmt.Sprintf("number %d is in use, and numbers from %d on count as never handed out", highest, c.db.Reserved),
			inDatabase("set the mark above all numbers that are in use", metadata.ReserveFix(highest+1)))
	}
}
