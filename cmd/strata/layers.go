// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/overlayutil"
)

const flagLowerdir = "lowerdir"

func layersCommand() *cli.Command {
	return &cli.Command{
		Name:      "layers",
		Usage:     "print the layer directories of an image",
		ArgsUsage: "REF",
		Description: "Prints the directories that the image is mounted from, one a line, top first: each once,\n" +
			"and without layers that add nothing. The directories must not be written to.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: flagLowerdir, Usage: "print the value of an overlay mount's option lowerdir"},
			&cli.BoolFlag{Name: flagJSON, Usage: "print a JSON array"},
		},
		Action: layers,
	}
}

func layers(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 1, 1)
	if err != nil {
		return err
	}
	if cmd.Bool(flagLowerdir) && cmd.Bool(flagJSON) {
		return usage(cmd, "--%s and --%s exclude each other", flagLowerdir, flagJSON)
	}
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		dirs, err := s.Layers(ctx, args[0])
		if err != nil {
			return err
		}
		w := cmd.Root().Writer
		switch {
		case cmd.Bool(flagJSON):
			return printJSON(w, dirs)
		case cmd.Bool(flagLowerdir):
			_, err = fmt.Fprintln(w, lowerdir(dirs))
		default:
			_, err = fmt.Fprintln(w, strings.Join(dirs, "\n"))
		}
		return err
	})
}

// lowerdir writes directories as mount(2) takes them. A shell's quotes are another matter.
func lowerdir(dirs []string) string {
	escaped := make([]string, len(dirs))
	for i, dir := range dirs {
		escaped[i] = overlayutil.EscapeLower(dir)
	}
	return strings.Join(escaped, ":")
}
