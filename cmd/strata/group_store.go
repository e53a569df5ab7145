// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/urfave/cli/v3"

// storeCommands make and check additional stores.
func storeCommands() []*cli.Command { return nil }
