// SPDX-License-Identifier: Apache-2.0

// Command containerd-strata-grpc is the daemon: it serves the Strata
// snapshotter to containerd as a proxy plugin on a unix socket.
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

	"github.com/strata-snapshotter/strata/cmd/fsckcommand"
)

const name = "containerd-strata-grpc"

func init() {
	// containerd's mount code changes the working directory of a thread that it
	// then gives up. Go can't give up the main thread: if the code ran on it, the
	// whole process would keep that directory, and the mount it is on, busy.
	// Locked here, the main thread runs main and nothing else.
	runtime.LockOSThread()
}

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is main with its surroundings given. The first SIGTERM or SIGINT ends
// the daemon in order, a second one at once. A reader of the log that goes
// away must not take the daemon with it: writing to a closed pipe is then an
// error, not a signal.
func run(args []string, stdout, stderr io.Writer) int {
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)
	cmd := newCommand()
	cmd.Writer, cmd.ErrWriter = stdout, stderr
	if err := cmd.Run(ctx, args); err != nil {
		code, say := exitCode(err)
		if say {
			// Joined errors come with line breaks; one failure is one line.
			_, _ = fmt.Fprintf(stderr, "%s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		return code
	}
	return 0
}

// newCommand is the tree of commands; without a subcommand the daemon runs.
func newCommand() *cli.Command {
	return &cli.Command{
		Name:           name,
		Usage:          "serve the Strata snapshotter to containerd",
		Version:        versionText(),
		Flags:          flags(),
		Action:         runDaemon,
		Commands:       []*cli.Command{configCommand(), fsckcommand.New(effectiveConfig)},
		OnUsageError:   usageError,
		ExitErrHandler: func(context.Context, *cli.Command, error) {},
	}
}

// usageError keeps the library from printing the whole help around an error.
func usageError(_ context.Context, cmd *cli.Command, err error, _ bool) error {
	return fmt.Errorf("%w, see \"%s --help\"", err, cmd.FullName())
}

// noArguments refuses what is left on the command line: a misspelt
// subcommand must not start the daemon.
func noArguments(cmd *cli.Command) error {
	if arg := cmd.Args().First(); arg != "" {
		return fmt.Errorf("unknown argument %q, see \"%s --help\"", arg, cmd.FullName())
	}
	return nil
}
