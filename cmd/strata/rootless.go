// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/internal/rootless"
)

// rootlessly makes the commands run as root of a user namespace where an ordinary user
// calls them: the store has files of other owners, and mounts are made to see what
// layers mean.
func rootlessly(commands []*cli.Command) []*cli.Command {
	for _, cmd := range commands {
		rootlessly(cmd.Commands)
		if action := cmd.Action; action != nil {
			cmd.Action = func(ctx context.Context, cmd *cli.Command) error {
				if !needsNamespace(cmd) {
					return action(ctx, cmd)
				}
				return again()
			}
		}
	}
	return commands
}

// stays is the metadata of commands that are of no use in a namespace that ends with them.
var stays = map[string]any{"stays": true}

// needsNamespace tells whether a command has to be run again in a user namespace.
func needsNamespace(cmd *cli.Command) bool {
	return rootless.Needed() && cmd.Metadata["stays"] == nil && needsUserNamespace(cmd)
}

// again runs the whole program in a user namespace and ends as it did.
func again() error {
	code, err := rootless.Run(os.Args)
	if err == nil && code == exitOK {
		return nil
	}
	if err != nil {
		return err
	}
	return exitError{code: code}
}

// adviceOn is what has to be said about the user namespace after an error that came of
// it, empty where there is nothing.
func adviceOn(err error) string {
	problem := os.Getenv(rootless.Problem)
	if problem == "" || !errors.Is(err, archive.ErrUnmappedID) && !errors.Is(err, unix.EINVAL) {
		return ""
	}
	return problem
}
