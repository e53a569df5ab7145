// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestConfigDefaultIsTheGoldenFile(t *testing.T) {
	want, err := os.ReadFile("../../config/config.toml")
	must(t, err)
	stdout, stderr, code := runCommand(t, "config", "default")
	if code != 0 || stderr != "" || stdout != string(want) {
		t.Errorf("exit %d, stderr %q, stdout:\n%s", code, stderr, stdout)
	}
}

func TestConfigCheck(t *testing.T) {
	good := writeConfig(t, "log_level = 'debug'\n")
	for _, args := range [][]string{{"--config", good, "config", "check"}, {"config", "check", "--config", good}} {
		stdout, stderr, code := runCommand(t, args...)
		if code != 0 || stdout != "ok: "+good+"\n" || stderr != "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
	bad := writeConfig(t, "\n[snapshotter]\nsync_remov = true\n")
	stdout, stderr, code := runCommand(t, "--config", bad, "config", "check")
	checkFailure(t, stderr, code, bad+":3", `"snapshotter.sync_remov"`)
	checkOneLine(t, stdout, stderr)
	missing := filepath.Join(t.TempDir(), "none.toml")
	stdout, stderr, code = runCommand(t, "--config", missing, "config", "check")
	checkFailure(t, stderr, code, missing, "does not exist")
	checkOneLine(t, stdout, stderr)
}

func TestStartRefuses(t *testing.T) {
	unknown := writeConfig(t, "adress = '/x'\n")
	missing := filepath.Join(t.TempDir(), "none.toml")
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"unknown key":      {[]string{"--config", unknown}, []string{unknown + ":1", `"adress"`}},
		"missing file":     {[]string{"--config", missing}, []string{missing, "does not exist"}},
		"wrong flag value": {[]string{"--config", os.DevNull, "--log-level", "loud"}, []string{"log_level", "loud"}},
		"relative root":    {[]string{"--config", os.DevNull, "--root", "here"}, []string{"root", "absolute"}},
		"unknown flag":     {[]string{"--rot", "/x"}, []string{"rot", "--help"}},
		"unknown command":  {[]string{"confg"}, []string{"confg", "--help"}},
		"unknown config":   {[]string{"config", "chek"}, []string{"chek", "--help"}},
		"too much":         {[]string{"config", "default", "x"}, []string{`"x"`}},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := runCommand(t, test.args...)
			checkFailure(t, stderr, code, test.want...)
			checkOneLine(t, stdout, stderr)
		})
	}
}

func TestFlagsOverrideTheFile(t *testing.T) {
	path := writeConfig(t, "root = '/file/root'\naddress = '/file/a.sock'\ncontainerd_address = '/file/c.sock'\nlog_level = 'warn'\n")
	cmd := newCommand()
	var got config.Config
	cmd.Action = captureConfig(&got)
	must(t, cmd.Run(t.Context(), []string{name, "--config", path, "--root", "/flag/root", "--address", "/flag/a.sock", "--log-format", "json"}))
	want := config.Default()
	want.Root, want.Address, want.LogFormat = "/flag/root", "/flag/a.sock", "json"
	want.ContainerdAddress, want.LogLevel = "/file/c.sock", "warn"
	if got.Root != want.Root || got.Address != want.Address || got.LogFormat != want.LogFormat ||
		got.ContainerdAddress != want.ContainerdAddress || got.LogLevel != want.LogLevel {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	cmd = newCommand()
	cmd.Action = captureConfig(&got)
	must(t, cmd.Run(t.Context(), []string{name, "--config", path, "--containerd-address", "/flag/c.sock", "--log-level", "error"}))
	if got.ContainerdAddress != "/flag/c.sock" || got.LogLevel != "error" || got.Root != "/file/root" {
		t.Errorf("got %+v", got)
	}
}

func TestVersion(t *testing.T) {
	testutil.RequireTool(t, "go")
	binary := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-ldflags", "-X main.version=v9.8.7", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(binary, "--version").Output()
	must(t, err)
	for _, want := range []string{name, "v9.8.7", "revision", "go1."} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func checkOneLine(t *testing.T, stdout, stderr string) {
	t.Helper()
	if stdout != "" || strings.Count(stderr, "\n") != 1 {
		t.Errorf("want one line on stderr and nothing else\nstdout: %s\nstderr: %s", stdout, stderr)
	}
}
