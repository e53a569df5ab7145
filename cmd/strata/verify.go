// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/storeview"
)

// verifyRow is a layer and what became of it. Fields stay as they are.
type verifyRow struct {
	Number  uint64            `json:"number"`
	DiffID  string            `json:"diffID"`
	Verdict storeview.Verdict `json:"verdict"`
	Entries int64             `json:"entries"`
	Bytes   int64             `json:"bytes"`
	Problem string            `json:"problem"`
	UsedBy  []holderName      `json:"usedBy"`
}

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "hold the files of layers against what was recorded when they were extracted",
		ArgsUsage: "[DIFFID|NUMBER|REFERENCE...]",
		Description: "Every file is read. Without arguments, all layers are verified. The store may be in use. If a layer is damaged the exit code is 4; " +
			"fsck --repair, with the daemon stopped, does what can be done about it. Layers that were made by another differ, or by an earlier version, have no index to be held against. " +
			"Those of additional stores have records of their own: see store verify.",
		Flags:  lookFlags(listFlags()...),
		Action: runVerify,
	}
}

func runVerify(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 0, -1)
	if err != nil {
		return err
	}
	return lookAt(ctx, cmd, func(v *storeview.View) error {
		layers, err := layersToVerify(v, args)
		if err != nil {
			return err
		}
		bad := false
		rows := make([]verifyRow, 0, len(layers))
		for _, l := range layers {
			found, err := v.Verify(ctx, l)
			if err != nil {
				return err
			}
			rows = append(rows, newVerifyRow(l, found))
			bad = bad || found.Verdict == storeview.Damaged
		}
		if err := printVerified(cmd, rows); err != nil || !bad {
			return err
		}
		return exitError{code: exitBadContent}
	})
}

func layersToVerify(v *storeview.View, args []string) (list []*storeview.Layer, err error) {
	if len(args) == 0 {
		return v.Layers, nil
	}
	seen := map[*storeview.Layer]bool{}
	for _, arg := range args {
		found, err := findAny(v, arg)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			if !seen[l] {
				seen[l] = true
				list = append(list, l)
			}
		}
	}
	return list, nil
}

// findAny is findLayers that knows numbers, too.
func findAny(v *storeview.View, arg string) ([]*storeview.Layer, error) {
	n, err := strconv.ParseUint(arg, 10, 64)
	if err != nil {
		return findLayers(v, arg)
	}
	if l := v.Layer(n); l != nil {
		return []*storeview.Layer{l}, nil
	}
	return nil, fmt.Errorf("%s has no layer %d: %w", v.Root, n, errdefs.ErrNotFound)
}

func newVerifyRow(l *storeview.Layer, found storeview.Verified) verifyRow {
	row := verifyRow{
		Number: l.Number, DiffID: l.DiffID.String(), Verdict: found.Verdict, Problem: found.Text,
		Entries: found.Stats.Entries, Bytes: found.Stats.Bytes, UsedBy: []holderName{},
	}
	for _, h := range l.Holders {
		row.UsedBy = append(row.UsedBy, nameOf(h))
	}
	return row
}

func printVerified(cmd *cli.Command, rows []verifyRow) error {
	return printList(cmd, []column[verifyRow]{
		{"LAYER", func(r verifyRow) string { return strconv.FormatUint(r.Number, 10) }},
		{"DIFFID", func(r verifyRow) string { return orDash(shortName(r.DiffID)) }},
		{"VERDICT", func(r verifyRow) string { return string(r.Verdict) }},
		{"ENTRIES", func(r verifyRow) string { return strconv.FormatInt(r.Entries, 10) }},
		{"READ", func(r verifyRow) string { return size(r.Bytes) }},
		{"PROBLEM", func(r verifyRow) string { return orDash(r.Problem) }},
	}, rows)
}
