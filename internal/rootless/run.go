// SPDX-License-Identifier: Apache-2.0

package rootless

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Variables of the environment.
const (
	// Mark is set to 1 in the namespace, for all that is started there: being root
	// there is not being root.
	Mark = "STRATA_ROOTLESS"
	// Problem is set there, too, if only the user's own id is mapped. It says why.
	Problem = "STRATA_ROOTLESS_PROBLEM"
	// first is the number of the second copy, in its environment and that of all that it
	// starts.
	first = "STRATA_ROOTLESS_FIRST"
	// stage tells the copies of the program how far it is: stageWait, or the number
	// of the process that called Run.
	stage = "STRATA_ROOTLESS_STAGE"
)

const (
	stageWait = "wait"
	// waitFD is where the first copy reads whether it may go on: the first
	// descriptor after the standard ones (os/exec, Cmd.ExtraFiles).
	waitFD = 3
)

// Needed tells whether the calling process is an ordinary user's and outside of a user
// namespace in which it is root.
func Needed() bool { return os.Geteuid() != 0 }

// Run runs this program with args (args[0] included) in new namespaces, with the
// standard files of this process, and returns its exit code: 128 and the number of the
// signal where one ended it. What the copy says is all there is to say.
// Continue has to be called at the start of main, and Run from the main goroutine of a
// main package that locked it to its thread: the copy ends with that thread.
//
// ErrFailedPrecondition: user namespaces are off here; the message says how to turn them
// on.
func Run(args []string) (code int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("make a pipe: %w", err)
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: args, Env: append(os.Environ(), stage+"="+stageWait),
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, ExtraFiles: []*os.File{r},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS},
	}
	// Before the start: a signal that comes in between is kept for the copy.
	signals := catch()
	defer signals.stop()
	err = cmd.Start()
	if closeErr := r.Close(); err != nil || closeErr != nil {
		return 0, errors.Join(refusedNamespace(err), closeErr, w.Close())
	}
	problem, err := mapIDs(cmd.Process.Pid)
	if err == nil {
		_, err = io.WriteString(w, releaseText(problem))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return 0, errors.Join(err, reap(cmd))
	}
	signals.handTo(cmd.Process)
	return exitCode(cmd.Wait())
}

// reap ends a copy that was not let go on, which the end of the pipe has told it.
func reap(cmd *exec.Cmd) error {
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// releaseText tells the first copy that it may go on, which program it is the copy of,
// and why it has one id only.
func releaseText(problem string) string {
	return strconv.Itoa(os.Getpid()) + "\n" + problem
}

// Continue has to be called before anything else that a program does that calls Run. In
// the first copy it does not return unless it fails; in the second, and in programs that
// Run has nothing to do with, it returns nil.
func Continue() error {
	now := os.Getenv(stage)
	if now == "" {
		return nil
	}
	if err := os.Unsetenv(stage); err != nil { // not for what is started from here
		return err
	}
	if now == stageWait {
		return becomeRoot()
	}
	return settle(now)
}

// becomeRoot waits until the namespace has ids, and executes the program again: only
// execve(2) gives root its capabilities.
func becomeRoot() error {
	pipe := os.NewFile(waitFD, "pipe")
	data, err := io.ReadAll(pipe)
	if err := errors.Join(err, pipe.Close()); err != nil {
		return fmt.Errorf("wait for ids: %w", err)
	}
	parent, problem, ok := strings.Cut(string(data), "\n")
	if !ok {
		os.Exit(1) // the process that started this one has failed, and says why
	}
	for name, value := range map[string]string{stage: parent, Mark: "1", Problem: problem} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	if problem == "" {
		if err := os.Unsetenv(Problem); err != nil {
			return err
		}
	}
	if err := syscall.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		return fmt.Errorf("execute the program again: %w", err)
	}
	return nil
}

// IsFirst tells whether this process is the one that Run started, and not one that it
// has started: the one that everything in the namespace ends with.
func IsFirst() bool { return os.Getenv(first) == strconv.Itoa(os.Getpid()) }

// Start runs a program with the standard files of this process, hands on signals, and
// returns the exit code as Run does.
func Start(program string, args []string) (code int, err error) {
	cmd := &exec.Cmd{Path: program, Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	signals := catch()
	defer signals.stop()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	signals.handTo(cmd.Process)
	return exitCode(cmd.Wait())
}

// settle is what the second copy does first.
func settle(parent string) error {
	if err := os.Setenv(first, strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	// Gaining capabilities closed /proc/self to its own process (prctl(2)), through
	// which mounts are made by descriptor.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("open /proc/self: %w", err)
	}
	// Killed, the process that the user knows of could not hand on anything.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return fmt.Errorf("be told of the parent's end: %w", err)
	}
	if strconv.Itoa(os.Getppid()) != parent {
		return fmt.Errorf("the process that started this one is gone: %w", errdefs.ErrUnavailable)
	}
	return nil
}

// refusedNamespace is the error where a user namespace can't be made.
func refusedNamespace(err error) error {
	advice := "user namespaces can't be made here (the kernel lacks CONFIG_USER_NS, or a container's seccomp filter or chroot(2) forbids it): run as root"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC):
		advice = "user namespaces are turned off or used up: as root, sysctl -w user.max_user_namespaces=15000"
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		advice = "user namespaces are turned off: as root, sysctl -w kernel.unprivileged_userns_clone=1"
	}
	return fmt.Errorf("make a user namespace: %w: %s: %w", err, advice, errdefs.ErrFailedPrecondition)
}
