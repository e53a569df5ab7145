// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagemount"
	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/internal/rootless"
)

const (
	flagReadWrite = "rw"
	flagForce     = "force"
)

func mountCommand() *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "mount an image at a directory",
		ArgsUsage: "REF DIR [--rw [NAME]]",
		Description: "Mounts the image read-only. With --rw what is written is kept in a snapshot called NAME, or by a\n" +
			"name that is made up, also after \"strata umount\"; mounting NAME again goes on with it, \"strata commit\"\n" +
			"makes an image of it, and \"strata rm\" removes it. Prints the snapshot's name.\n\n" +
			"An ordinary user can mount only in \"strata unshare\", since nobody else would see the mount.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: flagReadWrite, Usage: "keep what is written in a snapshot"},
			&cli.BoolFlag{Name: flagForce, Usage: "mount over a directory that is not empty"},
		},
		Metadata: stays,
		Action:   mountImage,
	}
}

func mountImage(ctx context.Context, cmd *cli.Command) error {
	args, err := arguments(cmd, 2, 3)
	if err != nil {
		return err
	}
	if len(args) == 3 && !cmd.Bool(flagReadWrite) {
		return usage(cmd, "unknown argument %q: only a snapshot of --%s has a name", args[2], flagReadWrite)
	}
	if err := mustMount(cmd); err != nil {
		return err
	}
	r := imagemount.Request{Ref: args[0], Dir: args[1]}
	if cmd.Bool(flagReadWrite) {
		r.Access = imagemount.ReadWrite
	}
	if len(args) == 3 {
		r.Name = args[2]
	}
	if cmd.Bool(flagForce) {
		r.Cover = imagemount.CoverAnything
	}
	return withMounts(ctx, cmd, func(ctx context.Context, m *imagemount.Manager) error {
		s, err := m.Mount(ctx, r)
		if errors.Is(err, imagemount.ErrName) {
			return usage(cmd, "%w", err)
		}
		if err == nil {
			_, err = fmt.Fprintln(cmd.Root().Writer, s.Name)
		}
		return err
	})
}

// mustMount refuses an ordinary user's mount outside of a user namespace: made in one of
// its own it would be gone when the command ends.
func mustMount(cmd *cli.Command) error {
	if !rootless.Needed() {
		return nil
	}
	return fmt.Errorf("mounting takes a user namespace in which the mount lives: run it, and what is to see the mount, in one: "+
		"%s unshare sh -c '%s %s && ...': %w", name, name, strings.Join(append([]string{cmd.Name}, cmd.Args().Slice()...), " "), errdefs.ErrFailedPrecondition)
}

// withMounts runs do with the image store open.
func withMounts(ctx context.Context, cmd *cli.Command, do func(ctx context.Context, m *imagemount.Manager) error) error {
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		return do(ctx, imagemount.New(s))
	})
}
