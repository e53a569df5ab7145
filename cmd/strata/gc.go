// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagemount"
	"github.com/strata-snapshotter/strata/imagestore"
)

const flagAll = "all"

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "delete what no image and no container needs",
		Description: "Returns when the files are deleted. What pulls that failed have left is kept for a day, so\n" +
			"that they can go on.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: flagAll, Usage: "delete the rests of pulls that failed, too"},
			&cli.BoolFlag{Name: flagJSON, Usage: "print a JSON object"},
		},
		Action: gc,
	}
}

func gc(ctx context.Context, cmd *cli.Command) error {
	if _, err := arguments(cmd, 0, 0); err != nil {
		return err
	}
	unfinished := imagestore.KeepUnfinished
	if cmd.Bool(flagAll) {
		unfinished = imagestore.DropUnfinished
	}
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		if err := imagemount.New(s).Sweep(ctx); err != nil {
			return err
		}
		collected, err := s.GC(ctx, unfinished)
		if err != nil {
			return err
		}
		return printCollected(cmd, collected)
	})
}

func printCollected(cmd *cli.Command, c imagestore.Collected) error {
	if cmd.Bool(flagJSON) {
		return printJSON(cmd.Root().Writer, c)
	}
	_, err := fmt.Fprintf(cmd.Root().Writer, "deleted %d blobs and %d snapshots, %s\n", c.Blobs, c.Snapshots, size(c.Bytes))
	return err
}
