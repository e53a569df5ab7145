// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagestore"
)

const flagName = "name"

func loadCommand() *cli.Command {
	return &cli.Command{
		Name:      "load",
		Usage:     "take images from an archive or an OCI layout",
		ArgsUsage: "FILE|DIRECTORY|-",
		Description: "Takes the tar of an OCI layout, an archive of docker save, either of them compressed with gzip\n" +
			"or zstd, or the directory of an OCI layout. - is standard input.\n" +
			"\n" +
			"Images keep the names that the archive has for them. One that is only tagged there is called\n" +
			"NAME:TAG, where NAME is that of --name or else localhost/ and the name of the file.\n" +
			"\n" +
			"NAME@DIGEST is printed for each image.",
		Flags: append(progressFlags(),
			platformFlag(),
			&cli.StringFlag{Name: flagName, Usage: "`NAME` for images without one; the name of the image, if there is only one"},
		),
		Action: load,
	}
}

func load(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 1, 1)
	if err != nil {
		return err
	}
	report, err := newReporter(cmd)
	if err != nil {
		return err
	}
	o := imagestore.LoadOptions{
		Path: args[0], Name: cmd.String(flagName), Platform: cmd.String(flagPlatform), Progress: report.event,
	}
	if o.Path == "-" {
		o.Path, o.Reader = "", cmd.Root().Reader
	}
	var images []imagestore.Image
	err = withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		images, err = s.Load(ctx, o)
		return err
	})
	report.end()
	for _, image := range images {
		if err := printResult(cmd, image); err != nil {
			return err
		}
	}
	return err
}
