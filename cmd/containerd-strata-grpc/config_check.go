// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/config"
)

// configCheckCommand reads the file as the daemon would, except that a
// missing default file is an error: there is nothing to check.
func configCheckCommand() *cli.Command {
	return &cli.Command{
		Name:         "check",
		Usage:        "check the file given by --config",
		OnUsageError: usageError,
		Action: func(_ context.Context, cmd *cli.Command) error {
			if err := noArguments(cmd); err != nil {
				return err
			}
			path := cmd.String(flagConfig)
			if _, err := config.Load(path); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.Root().Writer, "ok: %s\n", path)
			return err
		},
	}
}
