// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagemount"
)

const (
	flagMessage = "message"
	flagAuthor  = "author"
)

func commitCommand() *cli.Command {
	return &cli.Command{
		Name:      "commit",
		Usage:     "make an image of what was written to a mount",
		ArgsUsage: "DIR|NAME REF",
		Description: "The image is the one that was mounted with one layer more, which holds the changes. Its configuration\n" +
			"stays, but for the history. The snapshot stays as it is. Prints the digest of the image's manifest.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagMessage, Aliases: []string{"m"}, Usage: "`TEXT` for the history"},
			&cli.StringFlag{Name: flagAuthor, Usage: "`NAME` of the author, for the history and the image"},
		},
		Action: commitSnapshot,
	}
}

func commitSnapshot(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 2, 2)
	if err != nil {
		return err
	}
	note := imagemount.Note{Author: cmd.String(flagAuthor), Message: cmd.String(flagMessage), Time: time.Now()}
	return withMounts(ctx, cmd, func(ctx context.Context, m *imagemount.Manager) error {
		image, err := m.Commit(ctx, args[0], args[1], note)
		if err == nil {
			_, err = fmt.Fprintln(cmd.Root().Writer, image.Manifest.Digest)
		}
		return err
	})
}
