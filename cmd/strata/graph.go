// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/storeview"
	"github.com/strata-snapshotter/strata/storeview/graph"
)

const flagHTML = "html"

func graphCommand() *cli.Command {
	return &cli.Command{
		Name:  "graph",
		Usage: "draw what a store holds",
		Description: "Writes one page of HTML, which needs nothing but itself: all layers as areas, each once, and every image as a bar of its layers, " +
			"where layers that several have look the same. Below stands the same as tables.",
		Flags:  lookFlags(&cli.StringFlag{Name: flagHTML, Usage: "write the page to `FILE`; - is stdout"}),
		Action: runGraph,
	}
}

func runGraph(ctx context.Context, cmd *cli.Command) error {
	if _, err := arguments(cmd, 0, 0); err != nil {
		return err
	}
	file := cmd.String(flagHTML)
	if file == "" {
		return usage(cmd, "--%s FILE is missing", flagHTML)
	}
	return lookAt(ctx, cmd, func(v *storeview.View) (err error) {
		if file == "-" {
			return graph.Write(ctx, cmd.Root().Writer, v, time.Now())
		}
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		return graph.Write(ctx, f, v, time.Now())
	})
}
