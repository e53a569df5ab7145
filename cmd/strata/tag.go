// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagestore"
)

func tagCommand() *cli.Command {
	return &cli.Command{
		Name:        "tag",
		Usage:       "give an image another name",
		ArgsUsage:   "REF NEW",
		Description: "NEW is taken from the image that has it. The complete new name is printed.",
		Action:      tag,
	}
}

func tag(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 2, 2)
	if err != nil {
		return err
	}
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		as, err := s.Tag(ctx, args[0], args[1])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.Root().Writer, as)
		return err
	})
}
