// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// plainImage has files of root only.
func plainImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := testimage.Build([]string{"/bin/sh"}, testimage.Layer{testimage.File("f", "mine\n")})
	must(t, err)
	return image
}

// What a command is given and gives passes through as if nobody stood between.
func TestUnsharePassesThrough(t *testing.T) {
	u := newTester(t, userSettings{subids: testerSubs})
	for _, tc := range []struct {
		name   string
		args   []string
		code   int
		stdout string
	}{
		{"exit code", []string{"sh", "-c", "exit 7"}, 7, ""},
		{"killed", []string{"sh", "-c", "kill -KILL $$"}, 128 + 9, ""},
		{"stdin", []string{"cat"}, 0, "typed\n"},
		{"options are the command's", []string{"sh", "-c", "echo $1", "sh", "--root=/x"}, 0, "--root=/x\n"},
		{"root", []string{"id", "-u"}, 0, "0\n"},
		{"the user's shell", nil, 0, ""},
		{"nested", []string{"strata", "unshare", "id", "-u"}, 0, "0\n"},
		{"no such command", []string{"/no/such"}, 127, ""},
		{"not executable", []string{"/etc/passwd"}, 126, ""},
		{"its own /proc", []string{"sh", "-c", "ls -d /proc/self/fd/0"}, 0, "/proc/self/fd/0\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdin := "typed\n"
			if tc.args == nil {
				stdin = "" // it would be a command
			}
			r := u.runWith(strings.NewReader(stdin), append([]string{"unshare"}, tc.args...)...)
			if r.code != tc.code || r.stdout != tc.stdout {
				t.Errorf("%+v, want exit code %d and %q", r, tc.code, tc.stdout)
			}
		})
	}
}

// A signal that is ignored stays ignored.
func TestUnshareIgnoredSignal(t *testing.T) {
	testutil.RequireTool(t, "nohup")
	u := newTester(t, userSettings{subids: testerSubs})
	cmd := u.command()
	cmd.Args[len(cmd.Args)-1] = "nohup"
	cmd.Args = append(cmd.Args, "strata", "unshare", "sh", "-c", "kill -HUP $$; echo alive")
	if out, err := cmd.Output(); err != nil || string(out) != "alive\n" {
		t.Errorf("%v: %q", err, out)
	}
}

// A terminal is the command's.
func TestUnshareTerminal(t *testing.T) {
	testutil.RequireTool(t, "script")
	u := newTester(t, userSettings{subids: testerSubs})
	cmd := u.command()
	cmd.Args[len(cmd.Args)-1] = "script"
	cmd.Args = append(cmd.Args, "-qec", "strata unshare sh -c 'test -t 0 && test -t 1 && tty'", "/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "/dev/pts/") {
		t.Errorf("%v: %s", err, out)
	}
}

// waiting starts a command that says that it is there, and then waits for signals.
func waiting(t *testing.T, u *tester, script string) (kill func(syscall.Signal), wait func() error) {
	t.Helper()
	cmd := u.command("unshare", "sh", "-c", script+"\necho here\nwhile :; do sleep 0.05; done")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "here\n" {
		t.Fatalf("the command says %q, %v", line, err)
	}
	return func(s syscall.Signal) { must(t, cmd.Process.Signal(s)) }, cmd.Wait
}

// Signals reach the command, once each, and it decides what comes of them.
func TestUnshareSignals(t *testing.T) {
	u := newTester(t, userSettings{subids: testerSubs})
	// One that these tests were started to ignore, as by nohup, the command would ignore, too.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1)
	defer signal.Stop(caught)
	for name, s := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1} {
		kill, wait := waiting(t, u, "trap 'exit 9' "+name)
		kill(s)
		if err := wait(); err == nil || err.Error() != "exit status 9" {
			t.Errorf("SIG%s: %v", name, err)
		}
	}
}

// Killed, the program takes the command along.
func TestUnshareKilled(t *testing.T) {
	u := newTester(t, userSettings{subids: testerSubs})
	ended := filepath.Join(u.home, "ended")
	kill, wait := waiting(t, u, "trap 'echo >"+ended+"; exit' TERM")
	kill(syscall.SIGKILL)
	_ = wait() // it was killed
	for range 1000 {
		if _, err := os.Stat(ended); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the command goes on without the program that it was started by")
}

// Where user namespaces are turned off, what turns them on is named.
func TestNoUserNamespaces(t *testing.T) {
	u := newTester(t, userSettings{subids: testerSubs})
	// The setting is one of each user namespace, for those that are made in it.
	off := "echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --reuid 5 --regid 5 --clear-groups strata "
	for _, command := range []string{"unshare true", "images"} {
		u.refused(1, "sysctl -w user.max_user_namespaces", "unshare", "sh", "-ec", off+command)
	}
}
