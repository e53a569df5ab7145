// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagemount"
	"github.com/strata-snapshotter/strata/imagestore"
)

func rmCommand() *cli.Command {
	return &cli.Command{
		Name:        "rm",
		Usage:       "remove snapshots of mounts, and what was written to them",
		ArgsUsage:   "NAME|DIR...",
		Description: "Deletes what nothing needs any more, and returns when that is done.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: flagForce, Aliases: []string{"f"}, Usage: "unmount what is mounted"},
			&cli.BoolFlag{Name: flagNoGC, Usage: "leave the deletion to \"strata gc\""},
		},
		Action: removeSnapshots,
	}
}

func removeSnapshots(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 1, -1)
	if err != nil {
		return err
	}
	how := imagemount.Unmounted
	if cmd.Bool(flagForce) {
		how = imagemount.Unmounting
	}
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		for _, target := range args {
			if err := imagemount.New(s).Remove(ctx, target, how); err != nil {
				return err
			}
		}
		if cmd.Bool(flagNoGC) {
			return nil
		}
		_, err := s.GC(ctx, imagestore.KeepUnfinished)
		return err
	})
}
