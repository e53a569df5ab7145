// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagemount"
)

func diffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "list what was changed in a writable mount",
		ArgsUsage: "DIR|NAME",
		Description: "Prints a line for each path that differs from the image: A for one that was added, C for one that was\n" +
			"changed, D for one that was deleted. What is in a deleted directory is not listed.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: flagOutput, Aliases: []string{"o"}, Usage: "write the changes to `FILE`, or standard output for -, as a layer: an uncompressed tar"},
			&cli.BoolFlag{Name: flagJSON, Usage: "print a JSON array"},
		},
		Action: diffSnapshot,
	}
}

func diffSnapshot(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 1, 1)
	if err != nil {
		return err
	}
	output := cmd.String(flagOutput)
	if output != "" && cmd.Bool(flagJSON) {
		return usage(cmd, "--%s and --%s exclude each other", flagOutput, flagJSON)
	}
	return withMounts(ctx, cmd, func(ctx context.Context, m *imagemount.Manager) error {
		if output != "" {
			return writeDiff(ctx, m, args[0], output, cmd.Root().Writer)
		}
		changes, err := m.Changes(ctx, args[0])
		if err != nil {
			return err
		}
		return printChanges(cmd, changes)
	})
}

func printChanges(cmd *cli.Command, changes []imagemount.Change) error {
	w := cmd.Root().Writer
	if cmd.Bool(flagJSON) {
		if changes == nil {
			changes = []imagemount.Change{} // an empty list is [], not null
		}
		return printJSON(w, changes)
	}
	for _, c := range changes {
		if _, err := fmt.Fprintf(w, "%s %s\n", c.Kind, printable(c.Path)); err != nil {
			return err
		}
	}
	return nil
}

// writeDiff writes the layer to a file, or by way of one to stdout: it can take two
// attempts, and what was printed can't be taken back.
func writeDiff(ctx context.Context, m *imagemount.Manager, target, output string, stdout io.Writer) (err error) {
	var f *os.File
	if output == "-" {
		f, err = os.CreateTemp("", "strata-diff-")
	} else {
		f, err = os.Create(output)
	}
	if err != nil {
		return fmt.Errorf("make a file for the changes: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); output == "-" || err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = m.Tar(ctx, target, func() (io.Writer, error) { return f, rewind(f) })
	if err != nil || output != "-" {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(stdout, f)
	return err
}

func rewind(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return f.Truncate(0)
}
