// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/docker/go-units"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/storeview"
)

const (
	flagContainerd = "containerd-address"

	defaultContainerd = "/run/containerd/containerd.sock"
)

// lookFlags are of every command that looks into a store and names images.
func lookFlags(own ...cli.Flag) []cli.Flag {
	return append(own, &cli.StringFlag{
		Name: flagContainerd, Value: defaultContainerd, Sources: cli.EnvVars("CONTAINERD_ADDRESS"),
		Usage: "`SOCKET` of the containerd that knows the names of a daemon's images and containers; empty for none",
	})
}

// lookAt calls fn with the store that the command line names.
func lookAt(ctx context.Context, cmd *cli.Command, fn func(*storeview.View) error) (err error) {
	names, err := namesFor(ctx, cmd)
	if err != nil {
		return err
	}
	root := cmd.String(flagRoot)
	v, err := storeview.Open(ctx, root, names)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("there is no store in %s, name another directory with --%s: %w", root, flagRoot, err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if len(v.Problems) > 0 {
		log.G(ctx).Warnf("%s contradicts itself in %d places, the first is: %s; what follows may be wrong, run fsck", v.Looker().DatabasePath(), len(v.Problems), v.Problems[0])
	}
	return fn(v)
}

// namesFor asks who keeps the names of what is in the root. A store of images keeps them
// itself; a daemon's root leaves that to containerd, which need not run.
func namesFor(ctx context.Context, cmd *cli.Command) (storeview.Names, error) {
	if _, imageStore := storeview.Locate(cmd.String(flagRoot)); imageStore != "" {
		return storeview.ImageStoreNames(ctx, imageStore)
	}
	address := cmd.String(flagContainerd)
	if address == "" {
		return storeview.Names{}, nil
	}
	names, err := containerdNames(ctx, address)
	if err != nil && !cmd.IsSet(flagContainerd) {
		log.G(ctx).WithError(err).Info("the names of images and containers are not known")
		return storeview.Names{}, nil
	}
	if err != nil {
		return names, exitError{exitUnavailable, fmt.Errorf("ask containerd at %s for names: %w", address, err)}
	}
	return names, nil
}

// age is how long ago something was, for people.
func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}

// orDash keeps an empty cell from looking like a fault.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
