// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/log"

	"github.com/strata-snapshotter/strata/internal/privatens"
)

// options are the command's flags.
type options struct {
	fstype  string
	cuts    int
	kills   int
	stops   int
	seed    uint64
	when    string
	strata  string
	work    string
	workers int
	sizeMB  int
	files   int
	prove   bool
}

// errFindings makes the exit code 1 when all could be run.
var errFindings = errors.New("there were findings: see above")

// privateMark is set in the environment of the copy that runs in its own namespace.
const privateMark = "STRATA_CRASH_PRIVATE"

func main() {
	if err := command(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

func command(args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: it mounts file systems")
	}
	if !privatens.Inside(privateMark) {
		return privatens.Rerun(privateMark, args)
	}
	if err := privatens.Forget(os.TempDir(), o.work); err != nil {
		return err
	}
	// Its own file system may have no fsverity, which containerd's store warns of.
	if err := log.SetLevel("error"); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return inWorkDir(o, func(o options) error { return runAll(ctx, o, out) })
}

func parse(args []string) (options, error) {
	var o options
	set := flag.NewFlagSet("crash", flag.ContinueOnError)
	set.StringVar(&o.fstype, "fs", "ext4", "file system: ext4, xfs or btrfs")
	set.IntVar(&o.cuts, "cuts", 0, "how often the power is cut")
	set.IntVar(&o.kills, "kills", 0, "how often the daemon is killed")
	set.IntVar(&o.stops, "stops", 0, "how often the daemon is stopped in order")
	set.Uint64Var(&o.seed, "seed", uint64(time.Now().Unix()), "of the first run; each one more adds 1")
	set.StringVar(&o.when, "when", "", "commit: right after an answer; later: after that, in silence; middle: at any moment. Empty: any of them")
	set.StringVar(&o.strata, "strata", "", "`program` to test; empty: the daemon is built from this checkout")
	set.StringVar(&o.work, "work", os.TempDir(), "`directory` for the file systems' images")
	set.IntVar(&o.workers, "workers", 4, "clients at a time")
	set.IntVar(&o.sizeMB, "size", 3072, "size of a file system in `MiB` (sparse)")
	set.IntVar(&o.files, "files", 5000, "how many files the largest layer has; fewer take less time")
	set.BoolVar(&o.prove, "prove", false, "run without durability: fail if nothing is lost")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if mkfs[o.fstype] == nil {
		return o, fmt.Errorf("-fs %s: power can be cut on ext4, xfs and btrfs only", o.fstype)
	}
	if o.when != "" && o.when != afterCommit && o.when != later && o.when != middle {
		return o, fmt.Errorf("-when %s: commit, later or middle", o.when)
	}
	if o.files <= manyFiles {
		return o, fmt.Errorf("-files %d: layers with more than %d files are synced in another way, and have to be there", o.files, manyFiles)
	}
	if o.cuts+o.kills+o.stops < 1 || o.workers < 1 {
		return o, errors.New("nothing to do: say -cuts, -kills or -stops, and at least one of -workers")
	}
	return o, nil
}

// inWorkDir runs do with a directory that goes afterwards.
func inWorkDir(o options, do func(o options) error) (err error) {
	dir, err := os.MkdirTemp(o.work, "strata-crash-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.work = dir
	if o.strata != "" {
		o.strata, err = filepath.Abs(o.strata)
	} else {
		o.strata, err = buildDaemon(dir)
	}
	if err != nil {
		return err
	}
	return do(o)
}

// runAll makes the runs one after another.
func runAll(ctx context.Context, o options, out io.Writer) error {
	p, err := newPool(ctx, filepath.Join(o.work, "content"), o.files)
	if err != nil {
		return fmt.Errorf("make the layers: %w", err)
	}
	sum := newTotal()
	lines := json.NewEncoder(out)
	for i, kind := range kinds(o) {
		rep, err := oneRun(ctx, o, p, kind, o.seed+uint64(i))
		if err != nil {
			return fmt.Errorf("run with seed %d: %w", rep.Seed, err)
		}
		sum.add(rep)
		if err := lines.Encode(rep); err != nil {
			return err
		}
	}
	if err := lines.Encode(sum); err != nil {
		return err
	}
	return sum.verdict(o.prove)
}

// kinds says what happens in each run.
func kinds(o options) []string {
	return slices.Concat(slices.Repeat([]string{cut}, o.cuts), slices.Repeat([]string{kill}, o.kills), slices.Repeat([]string{stop}, o.stops))
}
