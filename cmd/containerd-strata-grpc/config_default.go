// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/config"
)

func configDefaultCommand() *cli.Command {
	return &cli.Command{
		Name:         "default",
		Usage:        "print the default configuration",
		OnUsageError: usageError,
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			data, err := config.Default().TOML()
			if err != nil {
				return err
			}
			_, err = cmd.Root().Writer.Write(data)
			return err
		},
	}
}
