// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/storeview"
)

const flagMeasure = "measure"

// usageRow is what one kind of thing takes. Fields stay as they are.
type usageRow struct {
	Name   string `json:"name"`
	Count  int    `json:"count"`
	Bytes  int64  `json:"bytes"`
	Inodes int64  `json:"inodes"`
}

// What a store's parts are followed by.
const (
	partSaved       = "saved by sharing"
	partReclaimable = "reclaimable"
	partFree        = "free"
)

func usageCommand() *cli.Command {
	return &cli.Command{
		Name:  "usage",
		Usage: "show what a store takes on disk",
		Description: "The parts add up to the total, which is what the store takes. Layers are counted as they were when they were made; --" + flagMeasure + " counts them again. " +
			"Reclaimable is what no image, container or view holds; where the names of images are not known, that is nothing. Free is what the file system has left.",
		Flags: lookFlags(append(listFlags(),
			&cli.BoolFlag{Name: flagMeasure, Usage: "count the files of all layers, which takes time"})...),
		Action: runUsage,
	}
}

func runUsage(ctx context.Context, cmd *cli.Command) error {
	if _, err := arguments(cmd, 0, 0); err != nil {
		return err
	}
	return lookAt(ctx, cmd, func(v *storeview.View) error {
		rows, err := usageRows(ctx, v, cmd.Bool(flagMeasure))
		if err != nil {
			return err
		}
		return printList(cmd, []column[usageRow]{
			{"WHAT", func(r usageRow) string { return r.Name }},
			{"COUNT", func(r usageRow) string { return strconv.Itoa(r.Count) }},
			{"SIZE", func(r usageRow) string { return size(r.Bytes) }},
			{"INODES", func(r usageRow) string { return strconv.FormatInt(r.Inodes, 10) }},
		}, rows)
	})
}

func usageRows(ctx context.Context, v *storeview.View, measure bool) (rows []usageRow, err error) {
	var measured func(*storeview.Layer) (layerstore.Space, error)
	if measure {
		measured = func(l *storeview.Layer) (layerstore.Space, error) { return v.MeasureLayer(ctx, l) }
	}
	parts, err := v.Parts(ctx, measured)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		rows = append(rows, usageRow{Name: p.Name, Count: p.Count, Bytes: p.Bytes, Inodes: p.Inodes})
	}
	shared := 0
	for _, l := range v.Layers {
		if l.Shared() {
			shared++
		}
	}
	rows = append(rows, usageRow{Name: partSaved, Count: shared, Bytes: v.Saved()})
	rows = append(rows, reclaimable(v))
	free, err := v.Free()
	return append(rows, usageRow{Name: partFree, Bytes: free.Bytes, Inodes: free.Inodes}), err
}

// reclaimable are chains that no image is known of.
func reclaimable(v *storeview.View) usageRow {
	row := usageRow{Name: partReclaimable}
	if !v.NamesKnown() {
		return row
	}
	for _, h := range v.Holders {
		if h.Kind == storeview.KindChain {
			row.Count++
		}
	}
	row.Bytes = v.Reclaimable(storeview.KindChain)
	return row
}
