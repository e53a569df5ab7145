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

// ownerRow is one that a directory is there for. Fields stay as they are.
type ownerRow struct {
	// Directory is where: "layers", "snapshots", "trash" and so on; Number which.
	Directory string `json:"directory"`
	Number    uint64 `json:"number"`
	DiffID    string `json:"diffID"`
	// Kind is "snapshot", or what a holder is.
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func ownerCommand() *cli.Command {
	return &cli.Command{
		Name:      "owner",
		Usage:     "say which snapshots, images and containers a directory belongs to",
		ArgsUsage: "PATH|NUMBER",
		Description: "The path is below the root: absolute, or from there. It may lead into a layer or a snapshot, and need not exist any more. " +
			"A number is that of a snapshot or layer; mount options have them in lowerdir and upperdir.",
		Flags:  lookFlags(listFlags()...),
		Action: runOwner,
	}
}

func runOwner(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 1, 1)
	if err != nil {
		return err
	}
	return lookAt(ctx, cmd, func(v *storeview.View) error {
		list, err := ownersOf(v, args[0])
		if err != nil {
			return err
		}
		rows := []ownerRow{}
		for _, o := range list {
			rows = append(rows, ownerRows(o)...)
		}
		return printList(cmd, []column[ownerRow]{
			{"DIRECTORY", func(r ownerRow) string { return fmt.Sprintf("%s/%d", r.Directory, r.Number) }},
			{"KIND", func(r ownerRow) string { return r.Kind }},
			{"NAMESPACE", func(r ownerRow) string { return orDash(r.Namespace) }},
			{"NAME", func(r ownerRow) string { return shortName(r.Name) }},
		}, rows)
	})
}

func ownersOf(v *storeview.View, what string) ([]storeview.Owners, error) {
	if n, err := strconv.ParseUint(what, 10, 64); err == nil {
		list := v.OwnersOfNumber(n)
		if len(list) == 0 {
			return nil, fmt.Errorf("no snapshot or layer of %s has number %d: %w", v.Root, n, errdefs.ErrNotFound)
		}
		return list, nil
	}
	place, err := v.Resolve(what)
	if err != nil {
		return nil, err
	}
	o := v.OwnersOf(place)
	if len(o.Snapshots) == 0 {
		return nil, fmt.Errorf("%s/%d in %s belongs to nothing that the store knows: %w", place.Base, place.Number, v.Root, errdefs.ErrNotFound)
	}
	return []storeview.Owners{o}, nil
}

func ownerRows(o storeview.Owners) (rows []ownerRow) {
	base := ownerRow{Directory: o.Base, Number: o.Number}
	if o.Layer != nil {
		base.DiffID = o.Layer.DiffID.String()
	}
	for _, s := range o.Snapshots {
		row := base
		row.Kind, row.Namespace, row.Name = "snapshot", s.Namespace, s.Name
		rows = append(rows, row)
	}
	for _, h := range o.Holders {
		row := base
		row.Kind, row.Namespace, row.Name = string(h.Kind), h.Namespace, h.Name
		rows = append(rows, row)
	}
	return rows
}
