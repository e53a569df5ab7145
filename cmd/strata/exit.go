// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagestore"
)

// What the program ends with. docs/cli.md lists them. fsck has codes of its own, which
// docs/fsck.md explains.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2   // the command line, or a reference that can't be parsed
	exitNotFound    = 3   // no such image, snapshot, layer, platform or file
	exitBadContent  = 4   // wrong digest, truncated archive, layer that was refused
	exitUnavailable = 5   // the registry can't be reached, or the store is in use
	exitInterrupted = 130 // by a signal, as a shell has it for SIGINT
)

// exitError ends the program with a code that says more than 1. Without err, what it
// means has been printed.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// exitCode is the code that the program ends with after err, and whether there is
// something to say about it.
func exitCode(err error) (code int, say bool) {
	var e exitError
	if errors.As(err, &e) {
		return e.code, e.err != nil
	}
	switch {
	case errors.Is(err, context.Canceled):
		return exitInterrupted, true
	case errors.Is(err, imagestore.ErrReference), errors.Is(err, imagestore.ErrPlatform):
		return exitUsage, true
	case errdefs.IsNotFound(err):
		return exitNotFound, true
	case errdefs.IsInvalidArgument(err), errdefs.IsDataLoss(err):
		return exitBadContent, true
	case errdefs.IsUnavailable(err):
		return exitUnavailable, true
	}
	return exitFailed, true
}

// usage is an error in the command line.
func usage(cmd *cli.Command, format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format+", see \"%s --help\"", append(args, cmd.FullName())...)} //nolint:errorlint // format has %w where an error is given
}

// usageError keeps the library from printing the whole help around an error.
func usageError(_ context.Context, cmd *cli.Command, err error, _ bool) error {
	return usage(cmd, "%w", err)
}

// arguments are the command's arguments, of which there must be at least least and at
// most most; most < 0 is no limit.
func arguments(cmd *cli.Command, least, most int) ([]string, error) {
	args := cmd.Args().Slice()
	switch {
	case len(args) < least:
		return nil, usage(cmd, "an argument is missing")
	case most >= 0 && len(args) > most:
		return nil, usage(cmd, "unknown argument %q", args[most])
	}
	return args, nil
}
