// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/storeview"
)

// treeRow is a snapshot in its place in the tree. Fields stay as they are.
type treeRow struct {
	snapshotRow
	// Depth is how many ancestors it has.
	Depth int `json:"depth"`
	// SharedWith are the other snapshots that have one of its layers.
	SharedWith []string `json:"sharedWith"`
	// UsedBy are the images and containers whose topmost snapshot it is.
	UsedBy []holderName `json:"usedBy"`

	branch string // what is drawn before the name
}

// holderName tells who keeps something.
type holderName struct {
	Kind      storeview.Kind `json:"kind"`
	Namespace string         `json:"namespace"`
	Name      string         `json:"name"`
}

func (h holderName) String() string {
	if h.Kind == storeview.KindImage {
		return h.Name
	}
	return string(h.Kind) + " " + shortName(h.Name)
}

func nameOf(h *storeview.Holder) holderName {
	return holderName{Kind: h.Kind, Namespace: h.Namespace, Name: h.Name}
}

func treeCommand() *cli.Command {
	return &cli.Command{
		Name:  "tree",
		Usage: "show chains as a tree, and which layers are shared, by whom",
		Description: "Every snapshot stands below its parent; where several stand on one, the tree forks. A layer is shared where snapshots that do not stand on one another have it: " +
			"it is on disk once. Images stand at their topmost snapshot.",
		Flags:  lookFlags(append(listFlags(), noMeasureFlag())...),
		Action: runTree,
	}
}

func runTree(ctx context.Context, cmd *cli.Command) error {
	if _, err := arguments(cmd, 0, 0); err != nil {
		return err
	}
	return lookAt(ctx, cmd, func(v *storeview.View) error {
		rows, err := treeRows(ctx, cmd, v)
		if err != nil {
			return err
		}
		return printList(cmd, []column[treeRow]{
			{"SNAPSHOT", func(r treeRow) string { return r.branch + shortName(r.Name) }},
			{"LAYERS", func(r treeRow) string { return numbers(r.Layers) }},
			{"SIZE", func(r treeRow) string { return size(r.Size) }},
			{"SHARED WITH", func(r treeRow) string { return orDash(joinShort(r.SharedWith)) }},
			{"USED BY", func(r treeRow) string { return orDash(joinHolders(r.UsedBy)) }},
		}, rows)
	})
}

// step is a snapshot that is still to be shown.
type step struct {
	s          *storeview.Snapshot
	depth      int
	only, last bool // child of its parent
	indent     string
}

// treeRows goes down without recursion: chains have no limit. Snapshots whose parents
// lead in a circle are below no root and are left out; lookAt warned of them.
func treeRows(ctx context.Context, cmd *cli.Command, v *storeview.View) ([]treeRow, error) {
	rows := []treeRow{}
	var todo []step
	push := func(list []*storeview.Snapshot, depth int, indent string) {
		for i, s := range slices.Backward(list) {
			todo = append(todo, step{s, depth, len(list) == 1, i == len(list)-1, indent})
		}
	}
	push(rootsOf(v), 0, "")
	for len(todo) > 0 {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		row, err := newSnapshotRow(ctx, cmd, v, at.s)
		if err != nil {
			return nil, err
		}
		branch, below := at.draw()
		rows = append(rows, treeRow{snapshotRow: row, Depth: at.depth, SharedWith: sharedWith(at.s), UsedBy: usedBy(at.s), branch: branch})
		push(at.s.Children, at.depth+1, below)
	}
	return rows, nil
}

// draw indents where a chain forks only, as chains can be long.
func (s step) draw() (branch, below string) {
	switch {
	case s.depth == 0:
		return "", ""
	case s.only:
		return s.indent + "│ ", s.indent
	case s.last:
		return s.indent + "└─ ", s.indent + "   "
	}
	return s.indent + "├─ ", s.indent + "│  "
}

func rootsOf(v *storeview.View) (roots []*storeview.Snapshot) {
	for _, s := range v.Snapshots {
		if s.Parent == nil {
			roots = append(roots, s)
		}
	}
	return roots
}

func sharedWith(s *storeview.Snapshot) []string {
	names := []string{}
	for _, l := range s.Layers {
		for _, other := range l.Snapshots {
			if other != s {
				names = append(names, other.Name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func usedBy(s *storeview.Snapshot) []holderName {
	names := []holderName{}
	for _, h := range s.Holders {
		if h.Top == s && h.Kind != storeview.KindChain {
			names = append(names, nameOf(h))
		}
	}
	return names
}

func joinShort(names []string) string {
	short := make([]string, len(names))
	for i, name := range names {
		short[i] = shortName(name)
	}
	return strings.Join(short, ", ")
}

func joinHolders(names []holderName) string {
	text := make([]string, len(names))
	for i, name := range names {
		text[i] = name.String()
	}
	return strings.Join(text, ", ")
}
