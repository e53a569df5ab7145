// SPDX-License-Identifier: Apache-2.0

// Package privatens runs a program again in a mount namespace of its own: what it mounts
// is seen by nobody else, and goes with it, however it ends.
package privatens

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Inside says whether this process is the copy that Rerun started with mark.
func Inside(mark string) bool { return os.Getenv(mark) != "" }

// Rerun runs this program with args in a mount namespace of its own, marked by an
// environment variable, and returns when it has ended. A failure of the copy, which has
// said why, ends this process with its exit code.
//
// A namespace that somebody makes meanwhile would hold copies of the mounts of this one,
// and a file system that is still mounted anywhere does not read its disk again.
func Rerun(mark string, args []string) error {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	// An interrupt at the terminal reaches both; the copy cleans up.
	signal.Ignore(os.Interrupt)
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	return err
}

// Forget lets go of what others have mounted below dir, in the copy that Rerun started:
// a file system of theirs would not end with their own unmount while it is mounted here.
// What keep lies on stays.
func Forget(dir, keep string) error {
	keep, err := filepath.Abs(keep)
	if err != nil {
		return err
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("list the mounts: %w", err)
	}
	for _, m := range slices.Backward(mounts) {
		if m.Mountpoint == dir || keep == m.Mountpoint || strings.HasPrefix(keep, m.Mountpoint+"/") {
			continue
		}
		// It may have been below one that is gone already.
		err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "let go of", Path: m.Mountpoint, Err: err}
		}
	}
	return nil
}
