// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/internal/rootless"
)

const (
	flagRoot     = "root"
	flagLogLevel = "log-level"
	flagJSON     = "json"
	flagFormat   = "format"
	flagQuiet    = "quiet"
	flagGroup    = "group"
	flagWait     = "wait"
	flagProgram  = "mount-program"
)

// globalFlags stand before the command.
func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: flagRoot, Value: defaultRoot(), DefaultText: "/var/lib/strata, and strata in their data directory for ordinary users", Sources: cli.EnvVars("STRATA_ROOT"),
			Usage: "`DIRECTORY` of the image store, or the root of a daemon to look into",
		},
		&cli.StringFlag{Name: flagLogLevel, Value: "warn", Usage: "least severe `LEVEL` to log"},
		&cli.StringFlag{
			Name: flagGroup, Sources: cli.EnvVars("STRATA_GROUP"),
			Usage: "`GROUP` (name or number) that the image store's directory is given to, mode 1775; layers stay the owner's",
		},
		ownershipFlag(),
		&cli.StringFlag{
			Name: flagProgram, Value: config.MountProgramAuto, Sources: cli.EnvVars("STRATA_MOUNT_PROGRAM"),
			Usage: "who mounts: kernel, fuse-overlayfs, or auto: the kernel, and fuse-overlayfs in a user namespace where the kernel can't",
		},
		&cli.DurationFlag{Name: flagWait, Value: 10 * time.Second, Usage: "wait for `TIME` while another process uses the image store"},
	}
}

// defaultRoot is /var/lib/strata for root, and in the user's data directory
// (XDG Base Directory Specification) for everybody else.
func defaultRoot() string {
	if os.Geteuid() == 0 && os.Getenv(rootless.Mark) == "" {
		return "/var/lib/strata"
	}
	data := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) { // the specification has relative paths ignored
		data = filepath.Join(os.Getenv("HOME"), ".local", "share")
	}
	return filepath.Join(data, "strata")
}

// listFlags are of every command that prints a list.
func listFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: flagJSON, Usage: "print a JSON array"},
		&cli.StringFlag{Name: flagFormat, Usage: "print each row by a Go `TEMPLATE`"},
	}
}
