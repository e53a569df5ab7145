// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagestore"
)

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "print what there is to say of an image",
		ArgsUsage: "REF",
		Description: "Prints a JSON object: what containers are started with, where docker's defaults stand for\n" +
			"what a health check does not say; the layers, bottom first; and manifest and configuration\n" +
			"as they are.",
		Flags: []cli.Flag{
			platformFlag(),
			&cli.StringFlag{Name: flagFormat, Usage: "print it by a Go `TEMPLATE`"},
		},
		Action: inspect,
	}
}

func inspect(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 1, 1)
	if err != nil {
		return err
	}
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		image, err := s.Get(ctx, args[0], cmd.String(flagPlatform))
		if err != nil {
			return err
		}
		d, err := s.Describe(ctx, image)
		if err != nil {
			return err
		}
		if format := cmd.String(flagFormat); format != "" {
			return printTemplate(cmd, cmd.Root().Writer, format, []imagestore.Description{d})
		}
		return printJSON(cmd.Root().Writer, d)
	})
}
