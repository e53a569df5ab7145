// SPDX-License-Identifier: Apache-2.0

// Package fsckcommand is the command fsck, of the daemon and of the CLI.
package fsckcommand

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/log"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/service"
)

const (
	flagRepair  = "repair"
	flagRebuild = "rebuild"
	flagDryRun  = "dry-run"
	flagUsage   = "usage"
	flagData    = "data"
	flagContent = "content"
	flagJSON    = "json"
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

// ExitCode is the code that the program ends with after err, if that comes from fsck, and
// whether there is something to say about it.
func ExitCode(err error) (code int, say, ok bool) {
	var e exitError
	if errors.As(err, &e) {
		return e.code, e.err != nil, true
	}
	return 0, false, false
}

// New returns the command, which checks a root that nobody uses. docs/fsck.md says what
// it finds, and what the exit codes mean. load gives the configuration of the root.
func New(load func(*cli.Command) (config.Config, error)) *cli.Command {
	return &cli.Command{
		Name:  "fsck",
		Usage: "check the root directory, and repair it; the daemon must be stopped",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: flagRepair, Usage: "show what is to be done, and do it"},
			&cli.BoolFlag{Name: flagRebuild, Usage: "make a new metadata.db, if it is lost or can't be read"},
			&cli.BoolFlag{Name: flagDryRun, Usage: "show what --repair, or --rebuild, would do"},
			&cli.BoolFlag{Name: flagUsage, Usage: "measure every layer, too"},
			&cli.BoolFlag{Name: flagData, Usage: "hold every file of every layer against what was extracted, too"},
			&cli.StringFlag{Name: flagContent, Usage: "`DIRECTORY` of containerd's content store, from which --repair extracts damaged layers again"},
			&cli.BoolFlag{Name: flagJSON, Usage: "print one JSON object"},
		},
		Action: func(ctx context.Context, cmd *cli.Command) error { return runFsck(ctx, cmd, load) },
		OnUsageError: func(_ context.Context, cmd *cli.Command, err error, _ bool) error {
			return usageError(cmd, err)
		},
	}
}

// usageError is an error in the command line.
func usageError(cmd *cli.Command, err error) error {
	return exitError{fsck.ExitUsage, fmt.Errorf("%w, see \"%s --help\"", err, cmd.FullName())}
}

func runFsck(ctx context.Context, cmd *cli.Command, load func(*cli.Command) (config.Config, error)) error {
	if arg := cmd.Args().First(); arg != "" {
		return usageError(cmd, fmt.Errorf("unknown argument %q", arg))
	}
	if cmd.Bool(flagRepair) && cmd.Bool(flagRebuild) {
		return exitError{fsck.ExitUsage, errors.New("--rebuild comes first, --repair after that: they do not go together")}
	}
	cfg, err := load(cmd)
	if err != nil {
		return exitError{fsck.ExitUsage, err}
	}
	if err := log.SetLevel(cfg.LogLevel); err != nil {
		return exitError{fsck.ExitUsage, err}
	}
	opts := service.CheckOptions(cfg, cmd.String(flagContent))
	opts.Usage, opts.Data = cmd.Bool(flagUsage), cmd.Bool(flagData)
	report, err := checkOrRepair(ctx, cmd, opts)
	if report != nil {
		err = errors.Join(err, printReport(cmd, report))
	}
	if err != nil {
		return exitError{fsck.ExitNotChecked, err}
	}
	if code := report.ExitCode(); code != fsck.ExitClean {
		return exitError{code: code}
	}
	return nil
}

func checkOrRepair(ctx context.Context, cmd *cli.Command, opts fsck.Options) (*fsck.Report, error) {
	if cmd.Bool(flagRebuild) {
		return fsck.Rebuild(ctx, opts, func(*fsck.Rebuilt) bool { return !cmd.Bool(flagDryRun) })
	}
	if !cmd.Bool(flagRepair) && !cmd.Bool(flagDryRun) {
		return fsck.Check(ctx, opts)
	}
	var failed error
	report, err := fsck.Repair(ctx, opts, func(plan *fsck.Report) bool {
		if cmd.Bool(flagDryRun) {
			return false
		}
		if !cmd.Bool(flagJSON) {
			failed = plan.WriteText(cmd.Root().Writer)
		}
		return failed == nil // nobody saw the plan
	})
	return report, errors.Join(err, failed)
}

func printReport(cmd *cli.Command, report *fsck.Report) error {
	if cmd.Bool(flagJSON) {
		return report.WriteJSON(cmd.Root().Writer)
	}
	return report.WriteText(cmd.Root().Writer)
}
