// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
)

// judge holds what was read against each other. Each fault is one problem: an entry that
// is wrong is not missing, too.
func (s *scan) judge() {
	if slices.Contains(s.missing, string(bucketSnapshots)) {
		// Everything would seem to be an orphan.
		s.foldMissing()
		return
	}
	for _, n := range slices.Sorted(maps.Keys(s.c.Snapshots)) {
		sn := s.c.Snapshots[n]
		s.judgeKind(sn)
		s.judgeName(sn)
		s.judgeParent(sn)
		s.judgeRef(sn)
		s.judgeLayers(sn)
	}
	s.judgeCycles()
	s.judgeNames()
	s.judgeLinks(bucketChildren, ProblemChildOrphan, func(l link, sn Snapshot) bool { return sn.ParentNumber == l.a })
	s.judgeLinks(bucketByRef, ProblemByRefOrphan, func(l link, sn Snapshot) bool {
		ref := sn.Labels[snapshots.LabelSnapshotRef]
		return ref != "" && hashRef(ref) == l.a
	})
	s.judgeLinks(bucketRefs, ProblemRefOrphan, func(l link, sn Snapshot) bool { return sn.Layer == l.a || sn.Patch == l.a })
	s.judgeDiffIDs()
	s.judgeUnreferenced()
	s.foldMissing()
}

// judgeKind looks for what no sequence of calls leads to.
func (s *scan) judgeKind(sn Snapshot) {
	var why string
	switch {
	case sn.Name == "":
		why = "it has no name"
	case sn.Kind == snapshots.KindCommitted && sn.Layer == 0:
		why = "it is committed and has no layer"
	case sn.Kind == snapshots.KindView && sn.Layer != 0:
		why = "it is a view and has a layer"
	case sn.Kind != snapshots.KindCommitted && sn.Patch != 0:
		why = "it is not committed and has a patch"
	case sn.Kind != snapshots.KindCommitted && sn.Kind != snapshots.KindActive && sn.Kind != snapshots.KindView:
		why = fmt.Sprintf("its kind is %d", sn.Kind)
	default:
		return
	}
	s.add(Problem{Code: ProblemSnapshotInvalid, Number: sn.Number, Key: sn.Name, Text: fmt.Sprintf("snapshot %q: %s", sn.Name, why)})
}

func (s *scan) judgeName(sn Snapshot) {
	n, ok := s.names[string(indexName(sn.Name))]
	if ok && n == sn.Number || sn.Name == "" {
		return
	}
	p := Problem{Number: sn.Number, Key: sn.Name, Fixes: []Fix{putFix(bucketNames, indexName(sn.Name), indexKey(sn.Number))}, bucket: string(bucketNames)}
	switch other, there := s.c.Snapshots[n]; {
	case !ok:
		p.Code, p.Text = ProblemNameMissing, fmt.Sprintf("snapshot %q is not in the index of names", sn.Name)
	case there && other.Name == sn.Name:
		p.Code, p.Fixes = ProblemNameTwice, nil
		p.Text = fmt.Sprintf("the snapshots with numbers %d and %d are both named %q", n, sn.Number, sn.Name)
	default:
		p.Code, p.Text = ProblemNameWrong, fmt.Sprintf("the name %q leads to number %d and not to %d", sn.Name, n, sn.Number)
	}
	s.add(p)
}

func (s *scan) judgeParent(sn Snapshot) {
	if sn.ParentNumber == 0 {
		return
	}
	p := Problem{Number: sn.Number, Key: sn.Name}
	parent, ok := s.c.Snapshots[sn.ParentNumber]
	switch {
	case !ok && s.c.SnapshotsUnreadable[sn.ParentNumber]:
	case !ok:
		p.Code, p.Text = ProblemParentMissing, fmt.Sprintf("the parent of snapshot %q, number %d, does not exist", sn.Name, sn.ParentNumber)
		s.add(p)
	case parent.Kind != snapshots.KindCommitted:
		p.Code, p.Text = ProblemParentInvalid, fmt.Sprintf("the parent of snapshot %q, %q, is not committed", sn.Name, parent.Name)
		s.add(p)
	}
	s.needLink(sn, bucketChildren, ProblemChildMissing, link{sn.ParentNumber, sn.Number})
}

func (s *scan) judgeRef(sn Snapshot) {
	if ref := sn.Labels[snapshots.LabelSnapshotRef]; ref != "" {
		s.needLink(sn, bucketByRef, ProblemByRefMissing, link{hashRef(ref), sn.Number})
	}
}

// judgeLayers wants a record and a reference for each layer of a snapshot.
func (s *scan) judgeLayers(sn Snapshot) {
	for _, n := range []uint64{sn.Layer, sn.Patch} {
		if n == 0 {
			continue
		}
		if _, ok := s.c.Layers[n]; !ok && !s.c.LayersUnreadable[n] {
			s.add(Problem{Code: ProblemLayerUnknown, Number: n, Key: sn.Name, Text: fmt.Sprintf("snapshot %q stands on layer %d, which is not recorded", sn.Name, n)})
		}
		s.needLink(sn, bucketRefs, ProblemRefMissing, link{n, sn.Number})
	}
}

func (s *scan) needLink(sn Snapshot, bucket []byte, code string, l link) {
	if s.links[string(bucket)][l] {
		return
	}
	s.add(Problem{
		Code: code, Number: sn.Number, Key: sn.Name, bucket: string(bucket),
		Text:  fmt.Sprintf("the index %s has no entry for snapshot %q", bucket, sn.Name),
		Fixes: []Fix{putFix(bucket, l.key(), []byte{})},
	})
}

// judgeCycles follows parents. Each circle is reported once, at its lowest number.
func (s *scan) judgeCycles() {
	seen := map[uint64]uint64{} // by whose walk
	for _, start := range slices.Sorted(maps.Keys(s.c.Snapshots)) {
		for n := start; n != 0; n = s.c.Snapshots[n].ParentNumber {
			if by, ok := seen[n]; ok {
				if by == start {
					s.addCycle(n)
				}
				break
			}
			seen[n] = start
		}
	}
}

func (s *scan) addCycle(n uint64) {
	lowest := n
	for at := s.c.Snapshots[n].ParentNumber; at != n; at = s.c.Snapshots[at].ParentNumber {
		lowest = min(lowest, at)
	}
	name := s.c.Snapshots[lowest].Name
	s.add(Problem{Code: ProblemParentCycle, Number: lowest, Key: name, Text: fmt.Sprintf("the parents of snapshot %q lead back to it", name)})
}
