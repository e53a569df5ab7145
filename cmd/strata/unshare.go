// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/imagemount"
	"github.com/strata-snapshotter/strata/internal/rootless"
)

func unshareCommand() *cli.Command {
	first := 1
	return &cli.Command{
		Name:      "unshare",
		Usage:     "run a command as root of the user namespace that the store is used in",
		ArgsUsage: "[COMMAND [ARG...]]",
		Description: "An ordinary user's store has files of the ids in /etc/subuid and /etc/subgid, and what is mounted is\n" +
			"seen only by the process that mounted it and those that it starts. unshare starts COMMAND, or $SHELL,\n" +
			"where it is root, may mount, and sees the owners of the images' files:\n\n" +
			"   strata unshare sh -c 'strata mount REF DIR && ls -l DIR'\n\n" +
			"Mounts go away with the last process started, those of fuse-overlayfs with COMMAND. For root it only starts COMMAND.",
		StopOnNthArg: &first,
		Action:       unshare,
	}
}

// unshare becomes the command: nothing is left between the user and it. Only the first
// process of a user namespace stays, to end the mounts in it.
func unshare(_ context.Context, cmd *cli.Command) error {
	args := cmd.Args().Slice()
	if len(args) == 0 {
		args = []string{shell()}
	}
	if problem := os.Getenv(rootless.Problem); problem != "" {
		if _, err := fmt.Fprintf(cmd.Root().ErrWriter, "%s: warning: %s\n", name, problem); err != nil {
			return err
		}
	}
	program, err := exec.LookPath(args[0])
	switch {
	case err == nil && rootless.IsFirst():
		var code int
		if code, err = rootless.Start(program, args); err == nil {
			return endWith(code, imagemount.UnmountFuse())
		}
	case err == nil:
		err = syscall.Exec(program, args, os.Environ())
	}
	return exitError{notRunCode(err), fmt.Errorf("run %s: %w: %w", args[0], err, errdefs.ErrNotFound)}
}

// endWith is the end of the program after the command, of which the code is passed on.
func endWith(code int, err error) error {
	if code == exitOK {
		return err
	}
	return exitError{code: code}
}

// notRunCode is what shells end with for a command that isn't there (127), or can't be
// executed (126).
func notRunCode(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return 127
	}
	return 126
}

func shell() string {
	if shell := os.Getenv("SHELL"); shell != "" {
		return shell
	}
	return "/bin/sh"
}
