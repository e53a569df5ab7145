// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/extstore"
)

const flagVerify = "verify"

// storeRow is a layer of an additional store. Fields stay as they are.
type storeRow struct {
	DiffID  string    `json:"diffID"`
	Size    int64     `json:"size"`
	Inodes  int64     `json:"inodes"`
	Blobs   []string  `json:"blobs"`
	Created time.Time `json:"created"`
	// Problem says why it can't be used; empty if nothing is known against it.
	Problem string `json:"problem"`
}

func storeListCommand() *cli.Command {
	return &cli.Command{
		Name:        "list",
		Usage:       "list the layers of an additional store",
		ArgsUsage:   "DIRECTORY",
		Description: "A layer that can't be used has a problem. Their contents are not looked at: see verify.",
		Flags:       listFlags(),
		Action: func(_ context.Context, cmd *cli.Command) error {
			args, err := arguments(cmd, 1, 1)
			if err != nil {
				return err
			}
			list, err := extstore.List(args[0])
			if err != nil {
				return err
			}
			rows := make([]storeRow, 0, len(list))
			for _, l := range list {
				rows = append(rows, newStoreRow(l))
			}
			return printStore(cmd, rows)
		},
	}
}

func newStoreRow(l extstore.Listed) storeRow {
	row := storeRow{DiffID: l.DiffID.String(), Blobs: []string{}}
	if l.Err != nil {
		row.Problem = l.Err.Error()
		return row
	}
	row.Size, row.Inodes, row.Created = l.Layer.Bytes, l.Layer.Inodes, l.Layer.Created
	for _, blob := range l.Layer.Blobs {
		row.Blobs = append(row.Blobs, blob.String())
	}
	return row
}

func printStore(cmd *cli.Command, rows []storeRow) error {
	return printList(cmd, []column[storeRow]{
		{"DIFFID", func(r storeRow) string { return r.DiffID }},
		{"SIZE", func(r storeRow) string { return size(r.Size) }},
		{"INODES", func(r storeRow) string { return strconv.FormatInt(r.Inodes, 10) }},
		{"CREATED", func(r storeRow) string { return age(r.Created) }},
		{"PROBLEM", func(r storeRow) string { return orDash(r.Problem) }},
	}, rows)
}

func storeVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare the layers of an additional store with what was recorded when they were exported",
		ArgsUsage: "DIRECTORY [DIFFID...]",
		Description: "Without diffIDs, all layers are compared. Those that are not what they were have a problem, and the exit code is then 4. " +
			"It finds what got lost, damaged or half copied, and what a file system does not keep; not somebody who changes a layer and its layer.json.",
		Flags: append(listFlags(), &cli.StringFlag{
			Name: flagVerify, Value: string(extstore.VerifyFull),
			Usage: "`WHAT` is compared: full, metadata, which reads no contents of files, or none, which looks whether layers are complete",
		}),
		Action: runStoreVerify,
	}
}

func runStoreVerify(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 1, -1)
	if err != nil {
		return err
	}
	verify, err := extstore.ParseVerify(cmd.String(flagVerify))
	if err != nil {
		return usage(cmd, "--%s: %w", flagVerify, err)
	}
	list, err := extstore.List(args[0])
	if err != nil {
		return err
	}
	list, err = selected(cmd, list, args[1:])
	if err != nil {
		return err
	}
	bad := false
	rows := make([]storeRow, 0, len(list))
	for _, l := range list {
		row := newStoreRow(l)
		err := extstore.Check(ctx, args[0], l.DiffID, verify)
		if err != nil && !errdefs.IsDataLoss(err) && !errdefs.IsNotFound(err) {
			return err
		}
		if err != nil {
			bad, row.Problem = true, err.Error()
		}
		rows = append(rows, row)
	}
	if err := printStore(cmd, rows); err != nil || !bad {
		return err
	}
	return exitError{code: exitBadContent}
}

// selected are the layers that were asked for, all without a question.
func selected(cmd *cli.Command, list []extstore.Listed, diffIDs []string) ([]extstore.Listed, error) {
	if len(diffIDs) == 0 {
		return list, nil
	}
	have := map[digest.Digest]extstore.Listed{}
	for _, l := range list {
		have[l.DiffID] = l
	}
	var chosen []extstore.Listed
	for _, text := range diffIDs {
		diffID, err := digest.Parse(text)
		if err != nil {
			return nil, usage(cmd, "diffID %q: %w", text, err)
		}
		l, ok := have[diffID]
		if !ok { // Check says so
			l = extstore.Listed{DiffID: diffID}
		}
		chosen = append(chosen, l)
	}
	return chosen, nil
}
