// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/urfave/cli/v3"

// storeCommands make and check additional stores.
func storeCommands() []*cli.Command {
	return []*cli.Command{{
		Name:     "store",
		Usage:    "make and check additional stores: read-only directories of layers for many nodes",
		Commands: []*cli.Command{storeExportCommand(), storeListCommand(), storeVerifyCommand()},
	}}
}
