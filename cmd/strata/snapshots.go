// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagemount"
)

func snapshotsCommand() *cli.Command {
	return &cli.Command{
		Name:  "snapshots",
		Usage: "list what is, or was, mounted",
		Description: "Lists the snapshots of \"strata mount\": where each is mounted, and what its changes take on disk.\n" +
			"A mount is \"stale\" if it went away without \"strata umount\", as after a reboot, and \"elsewhere\" if it is\n" +
			"in another mount namespace, such as that of another \"strata unshare\".",
		Flags:  listFlags(),
		Action: listSnapshots,
	}
}

func listSnapshots(ctx context.Context, cmd *cli.Command) error {
	if _, err := arguments(cmd, 0, 0); err != nil {
		return err
	}
	return withMounts(ctx, cmd, func(ctx context.Context, m *imagemount.Manager) error {
		list, err := m.List(ctx)
		if err != nil {
			return err
		}
		return printList(cmd, snapshotColumns, list)
	})
}

var snapshotColumns = []column[imagemount.Snapshot]{
	{"NAME", func(s imagemount.Snapshot) string { return s.Name }},
	{"MODE", func(s imagemount.Snapshot) string { return mode(s.Writable) }},
	{"IMAGE", func(s imagemount.Snapshot) string { return s.Image }},
	{"CREATED", func(s imagemount.Snapshot) string { return s.Created.Local().Format(time.DateTime) }},
	{"SIZE", func(s imagemount.Snapshot) string { return size(s.Size) }},
	{"MOUNT", func(s imagemount.Snapshot) string { return string(s.State) }},
	{"DIRECTORY", func(s imagemount.Snapshot) string { return s.Dir }},
}

func mode(writable bool) string {
	if writable {
		return "rw"
	}
	return "ro"
}
