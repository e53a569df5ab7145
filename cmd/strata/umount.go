// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagemount"
)

func umountCommand() *cli.Command {
	return &cli.Command{
		Name:        "umount",
		Aliases:     []string{"unmount"},
		Usage:       "unmount what is mounted at a directory",
		ArgsUsage:   "DIR|NAME...",
		Description: "What was written to a mount that was made with --rw is kept, see \"strata snapshots\".",
		Metadata:    stays,
		Action:      umount,
	}
}

func umount(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 1, -1)
	if err != nil {
		return err
	}
	if err := mustMount(cmd); err != nil {
		return err
	}
	return withMounts(ctx, cmd, func(ctx context.Context, m *imagemount.Manager) error {
		for _, target := range args {
			if err := m.Unmount(ctx, target); err != nil {
				return err
			}
		}
		return nil
	})
}
