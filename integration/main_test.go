// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/strata-snapshotter/strata/internal/testimage"
)

// environment is what all tests share: programs, found or built once.
type environment struct {
	bin         string // directory of containerd, ctr, shim, runc
	strata      string // the daemon, built from this checkout
	busybox     string
	snapshotter string
	missing     error // why no test can run
}

var env environment

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	env.bin = os.Getenv("STRATA_TEST_BIN")
	if env.bin == "" {
		env.bin = "../.cache/bin"
	}
	env.snapshotter = os.Getenv("STRATA_TEST_SNAPSHOTTER")
	if env.snapshotter == "" {
		env.snapshotter = "strata"
	}
	if env.missing = prepare(); env.missing != nil {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "strata-it-build-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := buildDaemon(dir); err != nil {
		fmt.Fprintln(os.Stderr, "building the daemon:", err)
		return 1
	}
	return m.Run()
}

// prepare finds the programs and tells what is missing.
func prepare() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: containers are mounted and run")
	}
	var err error
	if env.bin, err = filepath.Abs(env.bin); err != nil {
		return err
	}
	for _, name := range []string{"containerd", "ctr", "containerd-shim-runc-v2"} {
		if _, err := os.Stat(filepath.Join(env.bin, name)); err != nil {
			return fmt.Errorf("%w: run hack/deps.sh test", err)
		}
	}
	env.busybox, err = testimage.FindBusybox(env.bin)
	return err
}

func buildDaemon(dir string) error {
	if env.snapshotter != "strata" {
		return nil
	}
	if isRootless() {
		env.strata = os.Getenv(daemonVariable)
		return nil
	}
	env.strata = filepath.Join(dir, "containerd-strata-grpc")
	args := []string{}
	if os.Getenv("STRATA_TEST_RACE") != "off" {
		args = append(args, "-race")
	}
	return goBuild(env.strata, "../cmd/containerd-strata-grpc", args...)
}

func goBuild(output, pkg string, flags ...string) error {
	cmd := exec.Command("go", append(append([]string{"build", "-o", output}, flags...), pkg)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}

// unable ends a test that cannot run here: skipped on a developer's machine, failed in
// CI, where a test that silently never runs would look like one that passes.
func unable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("cannot run: %s", why)
	}
	t.Skipf("cannot run: %s", why)
}

// needProgram gives the path of a program of env.bin that only some tests need.
func needProgram(t *testing.T, name string) string {
	t.Helper()
	if env.missing != nil {
		unable(t, env.missing.Error())
	}
	path := filepath.Join(env.bin, name)
	if _, err := os.Stat(path); err != nil {
		unable(t, err.Error()+": run hack/deps.sh test")
	}
	return path
}

// needStrata is for tests that make no sense with another snapshotter.
func needStrata(t *testing.T) {
	t.Helper()
	if env.snapshotter != "strata" {
		t.Skip("only for Strata")
	}
}
