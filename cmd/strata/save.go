// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v3"
	"golang.org/x/term"

	"github.com/strata-snapshotter/strata/imagestore"
)

const flagOutput = "output"

func saveCommand() *cli.Command {
	return &cli.Command{
		Name:      "save",
		Usage:     "write images to an archive",
		ArgsUsage: "REF...",
		Description: "Writes the tar of an OCI layout, which docker load takes, too. Digests stay what they are.\n" +
			"The blobs of all layers must be here, see \"strata pull --blobs\".",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagOutput, Aliases: []string{"o"}, Value: "-", Usage: "`FILE` to write; - is standard output"},
		},
		Action: save,
	}
}

func save(ctx context.Context, cmd *cli.Command) error {
	refs, err := arguments(cmd, 1, -1)
	if err != nil {
		return err
	}
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		return writeOutput(cmd, func(w io.Writer) error { return s.Save(ctx, w, refs...) })
	})
}

// writeOutput writes to what --output names. A file is there when it is whole, and not
// before.
func writeOutput(cmd *cli.Command, write func(io.Writer) error) error {
	path := cmd.String(flagOutput)
	if path == "-" {
		stdout := cmd.Root().Writer
		if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return usage(cmd, "an archive is not for a terminal, use --%s", flagOutput)
		}
		return buffered(stdout, write)
	}
	return replaceFile(path, write)
}

func buffered(w io.Writer, write func(io.Writer) error) error {
	b := bufio.NewWriterSize(w, 1<<20)
	if err := write(b); err != nil {
		return err
	}
	return b.Flush()
}

func replaceFile(path string, write func(io.Writer) error) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return writeInto(path, write) // a device or a pipe stays what it is
	}
	partial := path + ".partial"
	if err := writeInto(partial, write); err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	if err := os.Rename(partial, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func writeInto(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return buffered(f, write)
}
