// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/imagestore"
)

const flagOwnership = "ownership"

func ownershipFlag() cli.Flag {
	return &cli.StringFlag{
		Name: flagOwnership, Sources: cli.EnvVars("STRATA_OWNERSHIP"),
		Usage: "where the image store keeps owners and modes: `KIND` is real, or override-stat: in an attribute, without any privilege (default: what the store was made with, real for a new one)",
	}
}

// ownership is what the flag says, or else what the image store was made with.
func ownership(cmd *cli.Command) (string, error) {
	if asked := cmd.String(flagOwnership); asked != "" {
		return asked, nil
	}
	root, err := filepath.Abs(cmd.String(flagRoot))
	if err != nil {
		return "", fmt.Errorf("--%s: %w", flagRoot, err)
	}
	made, err := imagestore.OwnershipOf(root)
	if err != nil || made != "" {
		return made, err
	}
	return config.OwnershipReal, nil
}

// needsUserNamespace tells whether an ordinary user's command has to run as root of a
// user namespace: owners that are kept in attributes need neither ids nor mounts. If
// that can't be told, the command itself will say why.
func needsUserNamespace(cmd *cli.Command) bool {
	kind, err := ownership(cmd)
	return os.Geteuid() != 0 && err == nil && kind != config.OwnershipOverrideStat
}

// snapshotterOptions are those of the image store.
func snapshotterOptions(cmd *cli.Command) (*config.Snapshotter, error) {
	kind, err := ownership(cmd)
	if err != nil {
		return nil, err
	}
	options := config.Default().Snapshotter
	options.Ownership = kind
	return &options, nil
}
