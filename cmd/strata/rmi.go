// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagestore"
)

const flagNoGC = "no-gc"

func rmiCommand() *cli.Command {
	return &cli.Command{
		Name:      "rmi",
		Usage:     "remove images",
		ArgsUsage: "REF...",
		Description: "Takes the names away, and then deletes what nothing else needs, as \"strata gc\" does. Layers\n" +
			"that a container stands on stay until it is removed. The complete names are printed.",
		Flags:  []cli.Flag{&cli.BoolFlag{Name: flagNoGC, Usage: "delete nothing now"}},
		Action: rmi,
	}
}

func rmi(ctx context.Context, cmd *cli.Command) error {
	refs, err := arguments(cmd, 1, -1)
	if err != nil {
		return err
	}
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		var errs []error
		for _, ref := range refs {
			name, err := s.Remove(ctx, ref)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if _, err := fmt.Fprintln(cmd.Root().Writer, name); err != nil {
				return err
			}
		}
		if len(errs) < len(refs) && !cmd.Bool(flagNoGC) {
			_, err := s.GC(ctx, imagestore.KeepUnfinished)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}
