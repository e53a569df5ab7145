// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"github.com/containerd/log"
)

// options are the command's flags.
type options struct {
	corpus string
	bin    string
	strata string
	work   string
	fstype string
	sizeGB int
	pairs  int
	run    *regexp.Regexp
	json   string
	floor  bool
	list   bool
	keep   bool

	sharing    bool
	metadata   bool
	calm       bool
	quick      bool
	durability string
}

// errDifferences is what makes the exit code 1 when all could be measured.
var errDifferences = errors.New("there were failures or unexplained differences: see above")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout)
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("interrupted: %w", err)
	}
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	var pattern string
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.StringVar(&o.corpus, "corpus", ".cache/bench-corpus", "`directory` of layers")
	set.StringVar(&o.bin, "bin", ".cache/bin", "`directory` of containerd")
	set.StringVar(&o.strata, "strata", "", "`program` to measure; empty: the daemon is built from this checkout")
	set.StringVar(&o.work, "work", os.TempDir(), "`directory` for the file systems' images")
	set.StringVar(&o.fstype, "fs", "ext4", "file system to measure on: ext4 or xfs")
	set.IntVar(&o.sizeGB, "size", 24, "size of each file system in `GiB` (sparse)")
	set.IntVar(&o.pairs, "n", 5, "pairs of runs a scenario")
	set.StringVar(&pattern, "run", ".", "only scenarios whose name matches this `regexp`")
	set.StringVar(&o.json, "json", "", "write all values to this `file`")
	set.BoolVar(&o.floor, "floor", false, "measure decompression alone and creation of the trees alone")
	set.BoolVar(&o.list, "list", false, "list the scenarios")
	set.BoolVar(&o.keep, "keep-logs", false, "print the daemons' logs at the end")
	set.BoolVar(&o.sharing, "sharing", false, "measure what images with common layers cost, instead of unpacking")
	set.BoolVar(&o.metadata, "metadata", false, "measure operations on snapshots, instead of unpacking")
	set.BoolVar(&o.calm, "calm", false, "measure calls while much is removed, instead of unpacking")
	set.BoolVar(&o.quick, "quick", false, "with -sharing, -metadata and -calm: small, to try the program in a minute")
	set.StringVar(&o.durability, "durability", "commit", "with -sharing, -metadata and -calm: Strata's, commit or none")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.durability != "commit" && o.durability != "none" {
		return o, errors.New("-durability has to be commit or none")
	}
	if o.pairs < 1 || o.fstype != "ext4" && o.fstype != "xfs" {
		return o, errors.New("-n has to be at least 1, and -fs ext4 or xfs")
	}
	var err error
	o.run, err = regexp.Compile(pattern)
	return o, err
}

func command(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	// The unpacker would log what it can't clean up after an interrupt. We do that.
	if err := log.SetLevel("fatal"); err != nil {
		return err
	}
	if o.sharing || o.metadata || o.calm {
		return inWorkDir(o, func(o options, dir string) error { return measureShared(ctx, o, dir, out) })
	}
	corpus, err := openCorpus(o.corpus)
	if err != nil {
		return err
	}
	if o.list {
		for _, s := range corpus.scenarios(o.run) {
			fmt.Fprintln(out, s.Name)
		}
		return nil
	}
	return inWorkDir(o, func(o options, dir string) error {
		if o.floor {
			return floors(ctx, o, corpus, dir, out)
		}
		return benchmark(ctx, o, corpus, dir, out)
	})
}

// inWorkDir runs do with a directory that goes afterwards.
func inWorkDir(o options, do func(o options, dir string) error) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root: it mounts file systems and extracts owners")
	}
	if err := o.absolute(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.work, "strata-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return do(o, dir)
}

// measureShared measures what was asked for beside unpacking, in one run.
func measureShared(ctx context.Context, o options, dir string, out io.Writer) (err error) {
	if o.strata == "" {
		o.strata = filepath.Join(dir, "containerd-strata-grpc")
		if err := build(ctx, o.strata); err != nil {
			return err
		}
	}
	if o.quick {
		o.pairs = min(o.pairs, 1)
	}
	report := newFigures(o, out)
	// Also of what an interrupt has left undone.
	defer func() { err = errors.Join(err, report.finish()) }()
	if o.sharing {
		if err := measureSharing(ctx, o, dir, report); err != nil {
			return err
		}
	}
	if o.metadata {
		if err := measureOperations(ctx, o, dir, report); err != nil {
			return err
		}
	}
	if o.calm {
		return measureCalm(ctx, o, dir, report)
	}
	return nil
}

func (o *options) absolute() (err error) {
	for _, path := range []*string{&o.bin, &o.work, &o.strata} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}
