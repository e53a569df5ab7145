// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagestore"
)

const (
	flagPlatform = "platform"
	flagPolicy   = "policy"
	flagHostsDir = "hosts-dir"
	flagBlobs    = "blobs"
)

func pullCommand() *cli.Command {
	return &cli.Command{
		Name:      "pull",
		Usage:     "fetch images from a registry and unpack their layers",
		ArgsUsage: "REF...",
		Description: "Nothing is asked of the network if an image is complete: its manifest and configuration are\n" +
			"here, and all its layers are, on disk and in the database. Layers that are here are neither\n" +
			"fetched nor unpacked. A download that was interrupted goes on where it ended, for a day.\n" +
			"\n" +
			"A REF without a registry is on docker.io, or on what OCI_REGISTRY_DOMAIN names. Registries are\n" +
			"set up by hosts.toml files as containerd's are; on loopback they may speak plain HTTP.\n" +
			"Credentials are those of docker login and podman login, credential helpers included.\n" +
			"\n" +
			"NAME@DIGEST is printed for each image.",
		Flags: append(progressFlags(),
			platformFlag(),
			&cli.StringFlag{Name: flagPolicy, Value: string(imagestore.PolicyMissing), Usage: "when to ask the registry: `missing`, always or never"},
			&cli.StringSliceFlag{
				Name: flagHostsDir, Value: defaultHostsDirs(),
				DefaultText: "strata/certs.d and containerd/certs.d in $XDG_CONFIG_HOME, /etc/containerd/certs.d",
				Usage:       "`DIRECTORY` with hosts.toml files; the first that knows a registry counts",
			},
			&cli.BoolFlag{Name: flagBlobs, Usage: "fetch the blobs of layers that are here, too, so that the image can be saved"},
		),
		Action: pull,
	}
}

func platformFlag() cli.Flag {
	return &cli.StringFlag{Name: flagPlatform, Usage: "`PLATFORM` such as linux/arm64/v8, instead of this machine's"}
}

// defaultHostsDirs are containerd's directory, and before it those of the user.
func defaultHostsDirs() []string {
	user := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(user) { // the specification has relative paths ignored
		user = filepath.Join(os.Getenv("HOME"), ".config")
	}
	return []string{
		filepath.Join(user, "strata", "certs.d"),
		filepath.Join(user, "containerd", "certs.d"),
		"/etc/containerd/certs.d",
	}
}

func pull(ctx context.Context, cmd *cli.Command) error {
	refs, err := arguments(cmd, 1, -1)
	if err != nil {
		return err
	}
	policy := imagestore.Policy(cmd.String(flagPolicy))
	switch policy {
	case imagestore.PolicyMissing, imagestore.PolicyAlways, imagestore.PolicyNever:
	default:
		return usage(cmd, "--%s %q: must be missing, always or never", flagPolicy, policy)
	}
	return withStore(ctx, cmd, func(ctx context.Context, s *imagestore.Store) error {
		resolver := imagestore.NewResolver(ctx, cmd.StringSlice(flagHostsDir))
		for _, ref := range refs {
			err := pullOne(ctx, cmd, s, imagestore.PullOptions{
				Ref: ref, Platform: cmd.String(flagPlatform), Policy: policy,
				Resolver: resolver, Blobs: cmd.Bool(flagBlobs),
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func pullOne(ctx context.Context, cmd *cli.Command, s *imagestore.Store, o imagestore.PullOptions) error {
	report, err := newReporter(cmd)
	if err != nil {
		return err
	}
	o.Progress = report.event
	image, err := s.Pull(ctx, o)
	report.end()
	if err != nil {
		return err
	}
	return printResult(cmd, image)
}

// withoutDigest is a name to which a digest can be added.
func withoutDigest(name string) string {
	name, _, _ = strings.Cut(name, "@")
	return name
}
