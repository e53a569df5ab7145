// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/internal/testimage"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// rootCLI is the program as root has it.
type rootCLI struct {
	t             *testing.T
	program, root string
}

func newRootCLI(t *testing.T) rootCLI {
	t.Helper()
	testutil.RequireRoot(t)
	builtOnce = true
	program, err := built()
	must(t, err)
	c := rootCLI{t: t, program: program, root: filepath.Join(testutil.Tmpfs(t), "store")}
	t.Cleanup(func() {
		report, err := fsck.Check(context.Background(), fsck.Options{Root: filepath.Join(c.root, "store")})
		must(t, err)
		for _, f := range report.Findings {
			t.Errorf("fsck: %+v", f)
		}
	})
	return c
}

func (c rootCLI) run(args ...string) result {
	c.t.Helper()
	cmd := exec.Command(c.program, append([]string{"--root", c.root}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func (c rootCLI) ok(args ...string) string {
	c.t.Helper()
	r := c.run(args...)
	if r.code != exitOK {
		c.t.Fatalf("%s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// Mounts of a privileged user, what commands print, and what they end with.
func TestMountCommands(t *testing.T) {
	c := newRootCLI(t)
	archive := filepath.Join(t.TempDir(), "image.tar")
	must(t, testimage.WriteArchive(archive, "example.test/sample:1", owned(t)))
	c.ok("load", archive)
	dir := filepath.Join(filepath.Dir(c.root), "m")
	free := filepath.Join(filepath.Dir(c.root), "free")
	must(t, errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(free, 0o755)))

	if out := c.ok("mount", "example.test/sample:1", dir); !regexp.MustCompile(`^mount-[a-z2-7]{10}\n$`).MatchString(out) {
		t.Errorf("mount says %q", out)
	}
	r := c.run("mount", "example.test/sample:1", dir)
	if r.code != exitFailed || !strings.Contains(r.stderr, "--force") {
		t.Errorf("over a mount: %+v", r)
	}
	c.ok("umount", dir)
	if out := c.ok("mount", "--rw", "example.test/sample:1", dir, "work"); out != "work\n" {
		t.Errorf("mount says %q", out)
	}
	must(t, os.WriteFile(filepath.Join(dir, "etc/config"), []byte("new\n"), 0o644))
	t.Cleanup(func() { c.run("rm", "-f", "work") })
	for _, tc := range []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{"changes", []string{"diff", dir}, exitOK, "C /etc\nC /etc/config\n", ""},
		{"changes as JSON", []string{"diff", "--json", "work"}, exitOK, "[\n  {\n    \"kind\": \"C\",\n    \"path\": \"/etc\"\n  },", ""},
		{"of nothing", []string{"diff", "nosuch"}, exitNotFound, "", "nosuch"},
		{"two ways at once", []string{"diff", "--json", "-o", "-", "work"}, exitUsage, "", "exclude each other"},
		{"list", []string{"snapshots", "--format", "{{.Name}} {{.Writable}} {{.Image}} {{.State}} {{.Dir}}"}, exitOK, "work true example.test/sample:1 mounted " + dir + "\n", ""},
		{"table", []string{"snapshots"}, exitOK, "NAME   MODE   IMAGE ", ""},
		{"commit", []string{"commit", dir, "example.test/commit:1", "-m", "why", "--author", "me"}, exitOK, "sha256:", ""},
		{"commit to no reference", []string{"commit", dir, "A B"}, exitUsage, "", "A B"},
		{"commit of nothing", []string{"commit", "nosuch", "example.test/c:1"}, exitNotFound, "", "nosuch"},
		{"no name", []string{"mount", "--rw", "example.test/sample:1", dir, "a/b"}, exitUsage, "", "a/b"},
		{"a name without --rw", []string{"mount", "example.test/sample:1", dir, "n"}, exitUsage, "", "--rw"},
		{"no image", []string{"mount", "example.test/none:1", free}, exitNotFound, "", "example.test/none:1"},
		{"no directory", []string{"mount", "example.test/sample:1", "/no/such"}, exitNotFound, "", "/no/such"},
		{"no argument", []string{"mount", "example.test/sample:1"}, exitUsage, "", "missing"},
		{"program", []string{"--mount-program", "mine", "mount", "example.test/sample:1", dir}, exitUsage, "", "fuse-overlayfs"},
		{"remove what is mounted", []string{"rm", "work"}, exitFailed, "", "unmount it first"},
		{"unmount what is not", []string{"umount", "/proc"}, exitNotFound, "", "/proc"},
		{"remove", []string{"rm", "--force", "work"}, exitOK, "", ""},
		{"empty list", []string{"snapshots", "--json"}, exitOK, "[]\n", ""},
		{"the commit", []string{"inspect", "example.test/commit:1"}, exitOK, "why", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := c.run(tc.args...)
			if r.code != tc.code || !strings.Contains(r.stdout, tc.stdout) || !strings.Contains(r.stderr, tc.stderr) {
				t.Errorf("%+v\nwant exit code %d, %q and %q", r, tc.code, tc.stdout, tc.stderr)
			}
		})
	}
}

// The layer that diff writes is a file that is whole, or none.
func TestDiffOutput(t *testing.T) {
	c := newRootCLI(t)
	archive := filepath.Join(t.TempDir(), "image.tar")
	must(t, testimage.WriteArchive(archive, "example.test/sample:1", owned(t)))
	c.ok("load", archive)
	dir := filepath.Join(filepath.Dir(c.root), "m")
	must(t, os.Mkdir(dir, 0o755))
	c.ok("mount", "--rw", "example.test/sample:1", dir, "work")
	must(t, os.WriteFile(filepath.Join(dir, "new"), []byte("n"), 0o644))
	layer := filepath.Join(t.TempDir(), "layer.tar")
	c.ok("diff", "-o", layer, "work")
	written, err := os.ReadFile(layer)
	must(t, err)
	if printed := c.ok("diff", "-o", "-", "work"); printed != string(written) || len(written) < 1024 || len(written)%512 != 0 {
		t.Errorf("%d bytes in the file, %d printed", len(written), len(printed))
	}
	missing := filepath.Join(t.TempDir(), "missing.tar")
	if r := c.run("diff", "-o", missing, "nosuch"); r.code != exitNotFound {
		t.Errorf("of nothing: %+v", r)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a file was made for nothing")
	}
	c.ok("rm", "-f", "work")
}
