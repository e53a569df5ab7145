// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/storeview"
)

const flagDryRun = "dry-run"

// kindUnused is what is whole, and no image has any more. Other kinds are codes of
// leftovers, see docs/fsck.md.
const kindUnused = "unused"

// pruneRow is something that is not needed. Fields stay as they are.
type pruneRow struct {
	Kind string `json:"kind"`
	// What says in a sentence, or by a snapshot's name, what it is.
	What string `json:"what"`
	Path string `json:"path"`
	// Bytes is 0 where they were not counted.
	Bytes   int64 `json:"bytes"`
	Removed bool  `json:"removed"`
}

func pruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "remove what crashes and removals have left in a store",
		Description: "Directories that nothing names, what is in staging and in the trash, and, in an image store, what gc would delete. Nobody may use the store meanwhile: " +
			"a daemon removes its leftovers itself, and what images and containers of a daemon's root need is containerd's to say. Damage is left to fsck.",
		Flags: append(listFlags(), &cli.BoolFlag{
			Name: flagDryRun, Usage: "list what would be removed; snapshots that no image has, too, though what is in use is then kept",
		}),
		Action: runPrune,
	}
}

func runPrune(ctx context.Context, cmd *cli.Command) error {
	if _, err := arguments(cmd, 0, 0); err != nil {
		return err
	}
	dry := cmd.Bool(flagDryRun)
	cfg, err := rootConfig(cmd)
	if err != nil {
		return err
	}
	report, err := fsck.Prune(ctx, fsck.Options{Root: cfg.Root}, func(*fsck.Report) bool { return !dry })
	if err != nil {
		return err
	}
	rows := []pruneRow{}
	for _, f := range append(report.Repaired, report.Findings...) {
		rows = append(rows, pruneRow{Kind: string(f.Code), What: f.Message, Path: f.Subject.Path, Removed: !dry})
	}
	if _, imageStore := storeview.Locate(cmd.String(flagRoot)); imageStore != "" {
		unused, err := pruneImages(ctx, cmd, dry)
		if err != nil {
			return err
		}
		rows = append(rows, unused...)
	}
	return printList(cmd, []column[pruneRow]{
		{"KIND", func(r pruneRow) string { return r.Kind }},
		{"WHAT", func(r pruneRow) string { return r.What }},
		{"PATH", func(r pruneRow) string { return orDash(r.Path) }},
		{"SIZE", func(r pruneRow) string {
			if r.Bytes == 0 {
				return "-"
			}
			return size(r.Bytes)
		}},
	}, rows)
}

// pruneImages is gc. What it would delete is known for certain only when it does: leases
// and labels can hold what no image has.
func pruneImages(ctx context.Context, cmd *cli.Command, dry bool) (rows []pruneRow, err error) {
	if dry {
		err := lookAt(ctx, cmd, func(v *storeview.View) error {
			for _, h := range v.Holders {
				if h.Kind == storeview.KindChain {
					rows = append(rows, pruneRow{Kind: kindUnused, What: h.Top.Name, Bytes: h.Split().Reclaimable})
				}
			}
			return nil
		})
		return rows, err
	}
	err = withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		c, err := s.GC(ctx, imagestore.KeepUnfinished)
		if c.Blobs+c.Snapshots > 0 {
			what := fmt.Sprintf("%d blobs and %d snapshots", c.Blobs, c.Snapshots)
			rows = append(rows, pruneRow{Kind: kindUnused, What: what, Bytes: c.Bytes, Removed: true})
		}
		return err
	})
	return rows, err
}
