// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// judgeNames looks for names that lead to no snapshot of that name. One that a snapshot
// has was looked at with that.
func (s *scan) judgeNames() {
	owned := map[string]bool{}
	for _, sn := range s.c.Snapshots {
		owned[string(indexName(sn.Name))] = true
	}
	for _, key := range slices.Sorted(maps.Keys(s.names)) {
		if owned[key] || s.c.SnapshotsUnreadable[s.names[key]] {
			continue
		}
		s.add(Problem{
			Code: ProblemNameOrphan, Number: s.names[key], Text: fmt.Sprintf("the name with key %q leads to number %d, which is no snapshot of that name", key, s.names[key]),
			Fixes: []Fix{deleteFix(bucketNames, []byte(key))},
		})
	}
}

// judgeLinks looks for entries of an index whose snapshot, the second number, does not
// want them.
func (s *scan) judgeLinks(bucket []byte, code string, wanted func(link, Snapshot) bool) {
	links := slices.SortedFunc(maps.Keys(s.links[string(bucket)]), func(x, y link) int {
		return cmp.Or(cmp.Compare(x.a, y.a), cmp.Compare(x.b, y.b))
	})
	for _, l := range links {
		sn, ok := s.c.Snapshots[l.b]
		if ok && wanted(l, sn) || s.c.SnapshotsUnreadable[l.b] {
			continue
		}
		s.add(Problem{
			Code: code, Number: l.b, Key: sn.Name, Text: fmt.Sprintf("the index %s has an entry %d, %d that no snapshot asks for", bucket, l.a, l.b),
			Fixes: []Fix{deleteFix(bucket, l.key())},
		})
	}
}

// judgeDiffIDs holds the layers against the index by diffID, and the index against them.
func (s *scan) judgeDiffIDs() {
	owned := map[string]bool{}
	for _, n := range slices.Sorted(maps.Keys(s.c.Layers)) {
		l := s.c.Layers[n]
		if l.DiffID == "" {
			continue
		}
		owned[l.DiffID.String()] = true
		s.judgeDiffID(l)
	}
	used := s.used()
	for _, d := range slices.Sorted(maps.Keys(s.diffIDs)) {
		k, err := digestKey(d)
		if owned[d.String()] || err != nil || s.c.LayersUnreadable[s.diffIDs[d]] {
			continue
		}
		if _, recorded := s.c.Layers[s.diffIDs[d]]; !recorded && used[s.diffIDs[d]] {
			continue // that its layer is not recorded is a problem already
		}
		s.add(Problem{
			Code: ProblemDiffIDOrphan, Number: s.diffIDs[d], Key: d.String(), Text: fmt.Sprintf("the diffID %s leads to no layer of that diffID", d),
			Fixes: []Fix{deleteFix(bucketDiffIDs, k)},
		})
	}
}

func (s *scan) judgeDiffID(l Layer) {
	n, ok := s.diffIDs[l.DiffID]
	if ok && n == l.Number {
		return
	}
	k, err := digestKey(l.DiffID)
	if err != nil {
		return // judged when it was read
	}
	p := Problem{Number: l.Number, Key: l.DiffID.String(), Fixes: []Fix{putFix(bucketDiffIDs, k, indexKey(l.Number))}, bucket: string(bucketDiffIDs)}
	switch {
	case !ok:
		p.Code, p.Text = ProblemDiffIDMissing, fmt.Sprintf("layer %d can't be found by its diffID %s", l.Number, l.DiffID)
	case s.c.Layers[n].DiffID == l.DiffID:
		p.Code, p.Fixes = ProblemDiffIDTwice, nil
		p.Text = fmt.Sprintf("layers %d and %d have the same diffID %s", n, l.Number, l.DiffID)
	default:
		p.Code, p.Text = ProblemDiffIDWrong, fmt.Sprintf("the diffID %s leads to layer %d and not to %d", l.DiffID, n, l.Number)
	}
	s.add(p)
}

// judgeUnreferenced looks for layers that no snapshot stands on. While there are
// snapshots that can't be read, nobody can tell.
func (s *scan) judgeUnreferenced() {
	if s.c.Incomplete {
		return
	}
	used := s.used()
	for _, n := range slices.Sorted(maps.Keys(s.c.Layers)) {
		if used[n] {
			continue
		}
		l := s.c.Layers[n]
		fixes := []Fix{deleteFix(bucketLayers, indexKey(n))}
		if k, err := digestKey(l.DiffID); err == nil && s.diffIDs[l.DiffID] == n {
			fixes = append(fixes, deleteFix(bucketDiffIDs, k))
		}
		s.add(Problem{Code: ProblemLayerUnreferenced, Number: n, Key: l.DiffID.String(), Text: fmt.Sprintf("no snapshot stands on layer %d", n), Fixes: fixes})
	}
}

// used are the layers that snapshots stand on.
func (s *scan) used() map[uint64]bool {
	used := map[uint64]bool{}
	for _, sn := range s.c.Snapshots {
		used[sn.Layer], used[sn.Patch] = true, true
	}
	return used
}

// foldMissing makes one problem of a bucket that is missing and of all the entries that
// are missing with it.
func (s *scan) foldMissing() {
	for _, name := range s.missing {
		p := Problem{Code: ProblemBucketMissing, Key: name, Text: fmt.Sprintf("the bucket %q is missing", name), bucket: name}
		if name != string(bucketSnapshots) { // nothing tells what was in that
			p.Fixes = []Fix{{bucket: []byte(name)}}
		}
		var rest []Problem
		for _, other := range s.c.Problems {
			if other.bucket == name {
				p.Fixes = append(p.Fixes, other.Fixes...)
				continue
			}
			rest = append(rest, other)
		}
		rest = append(rest, p)
		s.c.Problems = rest
	}
}
