// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/storeview"
)

const flagNoMeasure = "no-measure"

func noMeasureFlag() cli.Flag {
	return &cli.BoolFlag{Name: flagNoMeasure, Usage: "don't count what containers wrote, which takes a look at each of their files"}
}

// snapshotRow is a snapshot as programs see it. Fields stay as they are.
type snapshotRow struct {
	Number    uint64    `json:"number"`
	Name      string    `json:"name"`
	Namespace string    `json:"namespace"`
	Key       string    `json:"key"`
	Kind      string    `json:"kind"`
	Parent    string    `json:"parent"`
	Layers    []uint64  `json:"layers"`
	DiffID    string    `json:"diffID"`
	Size      int64     `json:"size"`
	Inodes    int64     `json:"inodes"`
	Created   time.Time `json:"created"`
}

func lsCommand() *cli.Command {
	return &cli.Command{
		Name:  "ls",
		Usage: "list the snapshots of a store",
		Description: "Lists what containerd, or the image store, calls snapshots, with the numbers of the layers that each adds to its chain. " +
			"Size is what those layers take on disk, shared or not, and of an active snapshot what was written to it.",
		Flags:  lookFlags(append(listFlags(), noMeasureFlag())...),
		Action: runLs,
	}
}

func runLs(ctx context.Context, cmd *cli.Command) error {
	if _, err := arguments(cmd, 0, 0); err != nil {
		return err
	}
	return lookAt(ctx, cmd, func(v *storeview.View) error {
		rows := make([]snapshotRow, 0, len(v.Snapshots))
		for _, s := range v.Snapshots {
			row, err := newSnapshotRow(ctx, cmd, v, s)
			if err != nil {
				return err
			}
			rows = append(rows, row)
		}
		return printList(cmd, []column[snapshotRow]{
			{"NUMBER", func(r snapshotRow) string { return strconv.FormatUint(r.Number, 10) }},
			{"KIND", func(r snapshotRow) string { return r.Kind }},
			{"SNAPSHOT", func(r snapshotRow) string { return shortName(r.Name) }},
			{"PARENT", func(r snapshotRow) string { return orDash(shortName(r.Parent)) }},
			{"LAYERS", func(r snapshotRow) string { return numbers(r.Layers) }},
			{"SIZE", func(r snapshotRow) string { return size(r.Size) }},
			{"CREATED", func(r snapshotRow) string { return age(r.Created) }},
		}, rows)
	})
}

func newSnapshotRow(ctx context.Context, cmd *cli.Command, v *storeview.View, s *storeview.Snapshot) (snapshotRow, error) {
	row := snapshotRow{
		Number: s.Number, Name: s.Name, Namespace: s.Namespace, Key: s.Key, Kind: s.Kind, Layers: []uint64{}, Created: s.Created,
	}
	if s.Parent != nil {
		row.Parent = s.Parent.Name
	}
	for _, l := range s.Layers {
		row.Layers = append(row.Layers, l.Number)
		row.Size += l.Size
		row.Inodes += l.Inodes
		if l.DiffID != "" {
			row.DiffID = l.DiffID.String()
		}
	}
	if cmd.Bool(flagNoMeasure) {
		return row, nil
	}
	written, err := v.Written(ctx, s)
	row.Size += written.Bytes
	row.Inodes += written.Inodes
	return row, err
}

// shortName shortens the digest that most names end in, as people know them.
func shortName(name string) string {
	const digits = 12
	i := strings.LastIndex(name, "sha256:")
	if i < 0 || len(name) != i+len("sha256:")+64 {
		return name
	}
	return name[:i+len("sha256:")+digits]
}

func numbers(list []uint64) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(list), "[]"), " ", "+")
}
