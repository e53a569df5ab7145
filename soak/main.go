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
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/log"

	"github.com/strata-snapshotter/strata/internal/privatens"
)

// options are the command's flags.
type options struct {
	minutes float64
	seed    uint64
	clients int
	bin     string
	strata  string
	work    string
	race    bool
}

// errFindings makes the exit code 1 when all could be run.
var errFindings = errors.New("there were findings: see above")

// privateMark is set in the environment of the copy that runs in its own namespace.
const privateMark = "STRATA_SOAK_PRIVATE"

func main() {
	if err := command(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func command(args []string, out io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: it runs containers")
	}
	if !privatens.Inside(privateMark) {
		return privatens.Rerun(privateMark, args)
	}
	if err := privatens.Forget(os.TempDir(), o.work); err != nil {
		return err
	}
	if err := log.SetLevel("error"); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Fprintf(os.Stderr, "soak: %g minutes, seed %d\n", o.minutes, o.seed)
	rep, err := inWorkDir(o, func(o options) (*report, error) { return soak(ctx, o) })
	if err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(rep); err != nil {
		return err
	}
	if len(rep.Findings) > 0 {
		return errFindings
	}
	return nil
}

func parse(args []string) (options, error) {
	var o options
	set := flag.NewFlagSet("soak", flag.ContinueOnError)
	set.Float64Var(&o.minutes, "minutes", 1, "how long the clients go on")
	set.Uint64Var(&o.seed, "seed", uint64(time.Now().Unix()), "what the clients do")
	set.IntVar(&o.clients, "clients", 4, "how many there are")
	set.StringVar(&o.bin, "bin", ".cache/bin", "`directory` of containerd, its shim and runc")
	set.StringVar(&o.strata, "strata", "", "`program` to test; empty: the daemon is built from this checkout")
	set.StringVar(&o.work, "work", os.TempDir(), "`directory` to work in")
	set.BoolVar(&o.race, "race", false, "build the daemon with the race detector, and don't judge its memory")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.minutes <= 0 || o.clients < 1 {
		return o, errors.New("nothing to do: -minutes has to be more than 0, and -clients 1 or more")
	}
	var err error
	o.bin, err = filepath.Abs(o.bin)
	return o, err
}

// inWorkDir runs do with a directory that goes afterwards.
func inWorkDir(o options, do func(o options) (*report, error)) (rep *report, err error) {
	dir, err := os.MkdirTemp(o.work, "strata-soak-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// Nobody in particular must be able to walk through to a container's root.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	o.work = dir
	if o.strata != "" {
		o.strata, err = filepath.Abs(o.strata)
	} else {
		o.strata, err = buildDaemon(o, dir)
	}
	if err != nil {
		return nil, err
	}
	// containerd's client mounts images to read them.
	mounts := filepath.Join(dir, "mounts")
	if err := errors.Join(os.Mkdir(mounts, 0o700), mount.SetTempMountLocation(mounts)); err != nil {
		return nil, err
	}
	return do(o)
}

func buildDaemon(o options, dir string) (string, error) {
	program := filepath.Join(dir, "containerd-strata-grpc")
	args := []string{"build", "-o", program}
	if o.race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "github.com/strata-snapshotter/strata/cmd/containerd-strata-grpc")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the daemon: %w: %s", err, out)
	}
	return program, nil
}
