// SPDX-License-Identifier: Apache-2.0

// Containerd-with-strata is containerd with Strata compiled in: what a distribution
// that wants no second daemon would build. The tests run a container on it.
package main

import (
	"context"
	"fmt"
	"os"

	_ "github.com/containerd/containerd/v2/cmd/containerd/builtins" // containerd's own plugins
	"github.com/containerd/containerd/v2/cmd/containerd/command"

	_ "github.com/strata-snapshotter/strata" // io.containerd.snapshotter.v1.strata
)

func main() {
	if err := command.App().Run(context.Background(), os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "containerd-with-strata:", err)
		os.Exit(1)
	}
}
