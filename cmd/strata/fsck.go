// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/cmd/fsckcommand"
	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/storeview"
)

// fsckCommand is the daemon's, for an image store or the root of a daemon.
func fsckCommand() *cli.Command {
	cmd := fsckcommand.New(rootConfig)
	cmd.Usage = "check a store, and repair it; nobody may use it meanwhile"
	cmd.Description = "Holds metadata.db against itself and against the directories, and those against what they say of themselves. " +
		"Exit codes: 0 clean, 1 all repaired, 2 leftovers, 4 damage, 8 not checked, 16 wrong command line; docs/fsck.md explains findings."
	return cmd
}

// rootConfig is the configuration of the root that the command line names.
func rootConfig(cmd *cli.Command) (config.Config, error) {
	root, imageStore := storeview.Locate(cmd.String(flagRoot))
	root, err := filepath.Abs(root)
	if err != nil {
		return config.Config{}, err
	}
	cfg := config.Default()
	cfg.Root, cfg.LogLevel = root, cmd.String(flagLogLevel)
	if imageStore != "" {
		cfg.ContentRoot = filepath.Join(filepath.Dir(root), "content")
	}
	return cfg, nil
}
