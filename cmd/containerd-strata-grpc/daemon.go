// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"runtime"

	"github.com/containerd/log"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/service"
)

// runDaemon serves until ctx is done.
func runDaemon(ctx context.Context, cmd *cli.Command) (err error) {
	if err := noArguments(cmd); err != nil {
		return err
	}
	cfg, err := effectiveConfig(cmd)
	if err != nil {
		return err
	}
	if err := log.SetLevel(cfg.LogLevel); err != nil {
		return err
	}
	if err := log.SetFormat(log.OutputFormat(cfg.LogFormat)); err != nil {
		return err
	}
	defer dumpStacks(ctx)()
	log.G(ctx).WithField("version", versionText()).WithField("root", cfg.Root).Info("starting " + name)
	svc, err := service.New(ctx, cfg)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		// Told to stop while starting: nothing has gone wrong.
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, svc.Close()) }()
	// Now that the root is ours, and before a call makes a mount.
	if err := useTempMounts(ctx, cfg.Root); err != nil {
		return err
	}
	spareProcessors()
	reserve := limitGarbage()
	defer runtime.KeepAlive(reserve)
	return svc.Serve(ctx)
}
