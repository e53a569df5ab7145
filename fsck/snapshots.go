// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// snapshots holds the records of snapshots against directories and layers.
func (c *checker) snapshots() {
	for _, n := range sortedKeys(c.db.Snapshots) {
		sn := c.db.Snapshots[n]
		switch sn.Kind {
		case snapshots.KindActive:
			if sn.Layer == 0 { // a staged one needs no directory
				c.activeDir(sn)
			}
		case snapshots.KindCommitted:
			c.snapshotUsage(sn)
		default: // views have no directory
		}
	}
}

func (c *checker) aboutSnapshot(code Code, sn metadata.Snapshot, message string, plan ...Action) {
	c.add(code, Subject{Snapshot: sn.Name, Number: sn.Number, Path: c.path("snapshots", sn.Number)}, message, plan...)
}

func (c *checker) activeDir(sn metadata.Snapshot) {
	n, state := sn.Number, c.survey.Snapshots[sn.Number]
	if !state.Dir.IsDir() {
		if !c.interruptedCommit(n) { // that is found with the layers
			c.aboutSnapshot(CodeSnapshotMissing, sn, fmt.Sprintf("the directory of active snapshot %q is missing", sn.Name))
		}
		return
	}
	c.mode(rel("snapshots", n), state.Dir, layerstore.DirMode("snapshots"))
	if !state.FS.IsDir() {
		c.aboutSnapshot(CodeSnapshotFSMissing, sn, fmt.Sprintf("the upperdir of active snapshot %q is missing", sn.Name))
		return
	}
	if !state.Work.IsDir() {
		c.aboutSnapshot(CodeSnapshotWorkMissing, sn, fmt.Sprintf("the workdir of active snapshot %q is missing", sn.Name),
			onDisk(fmt.Sprintf("make snapshots/%d/work", n), func(_ context.Context, i *layerstore.Inspector) error { return i.MakeWork(n) }))
	}
	if state.SealErr != nil {
		c.aboutSnapshot(CodeSealUnreadable, sn, fmt.Sprintf("what was found out about the layer in snapshot %q can't be read: %v", sn.Name, state.SealErr))
	}
}

// interruptedCommit says whether layers/N is active snapshot N, whose commit did not come
// to its transaction.
func (c *checker) interruptedCommit(n uint64) bool {
	sn, ok := c.db.Snapshots[n]
	return ok && sn.Kind == snapshots.KindActive && sn.Layer == 0 &&
		!c.survey.Snapshots[n].Dir.Exists && c.survey.Layers[n].Dir.IsDir() && !c.isLayer(n)
}

// isLayer says whether metadata.db has layer n, or a snapshot that asks for it.
func (c *checker) isLayer(n uint64) bool {
	_, ok := c.db.Layers[n]
	return ok || c.db.LayersUnreadable[n] || c.roles.named[n]
}

// snapshotUsage wants a committed snapshot's usage to be that of its layers. Those count
// as layer.json says, since a wrong record of a layer is a finding of its own.
func (c *checker) snapshotUsage(sn metadata.Snapshot) {
	var want snapshots.Usage
	for _, n := range []uint64{sn.Layer, sn.Patch} {
		if n == 0 {
			continue
		}
		l, ok := c.db.Layers[n]
		if !ok {
			return
		}
		if state := c.survey.Layers[n]; state.Dir.IsDir() && state.ManifestErr == nil && state.Manifest.Number == n {
			l.Usage = usageOf(state.Manifest)
		}
		want.Add(l.Usage)
	}
	if sn.Usage == want {
		return
	}
	c.aboutSnapshot(CodeUsageSnapshot, sn, fmt.Sprintf("snapshot %q takes %s, and its layers %s", sn.Name, usageText(sn.Usage), usageText(want)),
		inDatabase(fmt.Sprintf("record what the layers of %q take", sn.Name), metadata.UsageFix(sn, want)))
}

// orphans are directories that nothing names.
func (c *checker) orphans() {
	for _, n := range sortedKeys(c.survey.Layers) {
		switch {
		case c.isLayer(n):
		case c.interruptedCommit(n):
			c.add(CodeCommitInterrupted, Subject{Snapshot: c.db.Snapshots[n].Name, Number: n, Path: c.path("layers", n)}, fmt.Sprintf("the directory of active snapshot %q is where a layer would be", c.db.Snapshots[n].Name),
				onDisk(fmt.Sprintf("move layers/%d to snapshots/%d", n, n), func(_ context.Context, i *layerstore.Inspector) error { return i.Unpublish(n) }))
		default:
			c.orphan(CodeLayerOrphan, "layers", n, func(i *layerstore.Inspector) error { return i.TrashLayer(n) })
		}
	}
	for _, n := range sortedKeys(c.survey.Snapshots) {
		sn, ok := c.db.Snapshots[n]
		_, isLayer := c.db.Layers[n]
		switch {
		case ok && sn.Kind == snapshots.KindActive:
		case isLayer && !c.survey.Layers[n].Dir.Exists: // found with the layers
		default:
			c.orphan(CodeSnapshotOrphan, "snapshots", n, func(i *layerstore.Inspector) error { return i.TrashSnapshot(n) })
		}
	}
}

func (c *checker) orphan(code Code, base string, n uint64, trash func(*layerstore.Inspector) error) {
	message := fmt.Sprintf("nothing in metadata.db names %s", rel(base, n))
	plan, advice := toTrash(rel(base, n), trash), rules[code].advice
	switch at := c.used[rel(base, n)]; {
	case c.db.Incomplete:
		message += "; it stays, as there are snapshots that can't be read"
		plan, advice = nil, c.advice(adviseRebuild)
	case len(at) > 0:
		message += "; it stays, as it is in use by the mount at " + at[0]
		plan, advice = nil, "end what uses the mount, and repair"
	}
	c.add(code, Subject{Number: n, Path: c.path(base, n)}, message, plan...).Advice = advice
}
