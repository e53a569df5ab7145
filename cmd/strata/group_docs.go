// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/urfave/cli/v3"

// docsCommands write what is generated from the commands.
func docsCommands() []*cli.Command {
	return []*cli.Command{{
		Name:     "docs",
		Usage:    "write the documentation of the commands",
		Hidden:   true,
		Commands: []*cli.Command{docsMarkdownCommand(), docsManCommand()},
	}}
}
