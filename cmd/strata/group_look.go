// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/urfave/cli/v3"

// lookCommands say what a store holds, its own or a running daemon's, and mend it.
func lookCommands() []*cli.Command {
	return []*cli.Command{lsCommand(), treeCommand(), duCommand(), ownerCommand(), usageCommand(), graphCommand(), verifyCommand(), pruneCommand(), fsckCommand()}
}
