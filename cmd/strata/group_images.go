// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/urfave/cli/v3"

// imageCommands bring images in and out, and say what they are.
func imageCommands() []*cli.Command {
	return []*cli.Command{
		pullCommand(), loadCommand(), saveCommand(), imagesCommand(), inspectCommand(),
		layersCommand(), tagCommand(), rmiCommand(), gcCommand(),
	}
}
