// SPDX-License-Identifier: Apache-2.0

// Command strata is an image store without a daemon, and the tool to look into any
// Strata store.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/internal/rootless"
)

const name = "strata"

// version is set by the linker.
var version = "unknown"

func init() {
	// containerd's mount code changes the working directory of a thread that it
	// then gives up. Locked here, the main thread runs main and nothing else, and
	// the directory that the program was started in stays its own.
	runtime.LockOSThread()
}

func main() {
	if err := rootless.Continue(); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(exitFailed)
	}
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// run is main with its surroundings given. The first signal ends a command in order, a
// second one at once.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)
	cmd := newCommand()
	cmd.Reader, cmd.Writer, cmd.ErrWriter = stdin, stdout, stderr
	if err := cmd.Run(ctx, args); err != nil {
		code, say := exitCode(err)
		if say {
			// Joined errors come with line breaks; one failure is one line.
			_, _ = fmt.Fprintf(stderr, "%s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "; "))
			if advice := adviceOn(err); advice != "" {
				_, _ = fmt.Fprintf(stderr, "%s: %s\n", name, advice)
			}
		}
		return code
	}
	return exitOK
}

// newCommand is the tree of commands. A group of commands has a file that lists it, and
// every command has one of its own.
func newCommand() *cli.Command {
	var commands []*cli.Command
	for _, group := range [][]*cli.Command{
		rootlessly(imageCommands()), rootlessly(mountCommands()), rootlessly(lookCommands()),
		rootlessly(storeCommands()), docsCommands(),
	} {
		commands = append(commands, group...)
	}
	setUsageError(commands)
	return &cli.Command{
		Name:                  name,
		Usage:                 "keep container images as layer directories, and look into Strata stores",
		Version:               version,
		Flags:                 globalFlags(),
		Before:                setLog,
		Commands:              commands,
		EnableShellCompletion: true,
		OnUsageError:          usageError,
		ExitErrHandler:        func(context.Context, *cli.Command, error) {},
	}
}
