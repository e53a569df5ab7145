// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagemount"
)

func rmCommand() *cli.Command {
	return &cli.Command{
		Name:        "rm",
		Usage:       "remove snapshots of mounts, and what was written to them",
		ArgsUsage:   "NAME|DIR...",
		Description: "The space is free after the next \"strata gc\".",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: flagForce, Aliases: []string{"f"}, Usage: "unmount what is mounted"}},
		Action:      removeSnapshots,
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
	return withMounts(ctx, cmd, func(ctx context.Context, m *imagemount.Manager) error {
		for _, target := range args {
			if err := m.Remove(ctx, target, how); err != nil {
				return err
			}
		}
		return nil
	})
}
