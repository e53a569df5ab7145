// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/config"
)

const (
	flagConfig            = "config"
	flagRoot              = "root"
	flagAddress           = "address"
	flagContainerdAddress = "containerd-address"
	flagLogLevel          = "log-level"
	flagLogFormat         = "log-format"
)

func flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: flagConfig, Value: config.DefaultPath, Usage: "configuration `FILE`"},
		&cli.StringFlag{Name: flagRoot, Usage: "`DIRECTORY` for layers, snapshots and metadata"},
		&cli.StringFlag{Name: flagAddress, Usage: "unix `SOCKET` to serve"},
		&cli.StringFlag{Name: flagContainerdAddress, Usage: "containerd's own `SOCKET`"},
		&cli.StringFlag{Name: flagLogLevel, Usage: "least severe `LEVEL` to log"},
		&cli.StringFlag{Name: flagLogFormat, Usage: "`FORMAT` of the log: text or json"},
	}
}

// effectiveConfig is the file with the flags on top. Only the default file
// may be missing: one that was asked for by name was meant to be read.
func effectiveConfig(cmd *cli.Command) (config.Config, error) {
	cfg, err := config.Load(cmd.String(flagConfig))
	if errdefs.IsNotFound(err) && !cmd.IsSet(flagConfig) {
		cfg, err = config.Default(), nil
	}
	if err != nil {
		return config.Config{}, err
	}
	for flag, value := range map[string]*string{
		flagRoot:              &cfg.Root,
		flagAddress:           &cfg.Address,
		flagContainerdAddress: &cfg.ContainerdAddress,
		flagLogLevel:          &cfg.LogLevel,
		flagLogFormat:         &cfg.LogFormat,
	} {
		if cmd.IsSet(flag) {
			*value = cmd.String(flag)
		}
	}
	if err := cfg.Validate(); err != nil {
		return config.Config{}, fmt.Errorf("configuration with flags: %w", err)
	}
	return cfg, nil
}
