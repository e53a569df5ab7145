// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/urfave/cli/v3"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:         "config",
		Usage:        "print or check a configuration",
		Commands:     []*cli.Command{configDefaultCommand(), configCheckCommand()},
		OnUsageError: usageError,
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			return cli.ShowSubcommandHelp(cmd)
		},
	}
}
