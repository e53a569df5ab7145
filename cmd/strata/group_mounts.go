// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/urfave/cli/v3"

// mountCommands work with the trees of images and with snapshots.
func mountCommands() []*cli.Command {
	return []*cli.Command{
		mountCommand(), umountCommand(), snapshotsCommand(), diffCommand(), commitCommand(), rmCommand(), unshareCommand(),
	}
}
