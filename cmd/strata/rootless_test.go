// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/imagemount"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// Every command that has to do with images and mounts, by an ordinary user with
// subordinate ids.
func TestRootless(t *testing.T) {
	for _, program := range []string{config.MountProgramKernel, config.MountProgramFuse} {
		t.Run(program, func(t *testing.T) {
			if program == config.MountProgramFuse {
				testutil.RequireTool(t, "fuse-overlayfs", "mount.fuse3")
			}
			u := newTester(t, userSettings{subids: testerSubs, env: []string{"STRATA_MOUNT_PROGRAM=" + program}})
			ref := serve(t, owned(t))
			u.ok("pull", "--blobs", ref)
			testRootlessImages(t, u, ref)
			testRootlessMounts(t, u, ref)
			u.ok("rmi", ref)
			u.ok("gc", "--all")
			entries, err := os.ReadDir(filepath.Join(u.home, ".local/share/strata/store/layers"))
			must(t, err)
			if len(entries) > 0 {
				t.Errorf("layers of no image: %v", entries)
			}
			u.checkStore()
		})
	}
}

func testRootlessImages(t *testing.T, u *tester, ref string) {
	t.Helper()
	if out := u.ok("images"); !strings.Contains(out, strings.TrimSuffix(ref, ":1")) {
		t.Errorf("images:\n%s", out)
	}
	dirs := strings.Fields(u.ok("layers", ref))
	if len(dirs) != 2 || !strings.HasPrefix(dirs[0], filepath.Join(u.home, ".local/share/strata")) {
		t.Errorf("layers: %q", dirs)
	}
	archive := filepath.Join(u.home, "image.tar")
	u.ok("save", "-o", archive, ref)
	u.ok("tag", ref, "example.test/other:1")
	u.ok("rmi", ref)
	u.ok("rmi", "example.test/other:1")
	u.ok("load", archive)
	u.ok("inspect", ref)
}

// visit is what a user does in `strata unshare`, in the user's home.
const visit = `
strata mount "$0" m >/dev/null
stat -c '%u:%g %a %n' m/etc/owned m/data; ls m/data m/data/sub
strata umount m
strata mount "$0" m --rw work
echo new >m/etc/config; chown 5:6 m/etc/owned; rm -r m/data/sub; mkdir m/data/sub; echo >m/data/sub/other
strata diff work
strata snapshots --format '{{.Name}} {{.State}}'
`

const visitShows = `7:8 640 m/etc/owned
1000:1000 755 m/data
m/data:
sub

m/data/sub:
new
work
C /data
C /data/sub
D /data/sub/new
A /data/sub/other
C /etc
C /etc/config
C /etc/owned
work mounted
`

func testRootlessMounts(t *testing.T, u *tester, ref string) {
	t.Helper()
	u.ok("unshare", "mkdir", "m")
	u.refused(1, "strata unshare sh -c 'strata mount "+ref+" m && ...'", "mount", ref, "m")
	u.refused(1, "strata unshare", "umount", "m")
	if out := u.ok("unshare", "sh", "-ec", visit, ref); out != visitShows {
		t.Errorf("it shows\n%s\nwant\n%s", out, visitShows)
	}
	// The mount is gone with its namespace.
	if out := u.ok("snapshots", "--format", "{{.Name}} {{.State}}"); out != "work stale\n" {
		t.Errorf("after the visit: %q", out)
	}
	testOtherNamespace(t, u, ref)
	u.ok("commit", "work", "example.test/commit:1", "-m", "changed", "--author", "me")
	shown := u.ok("unshare", "sh", "-ec", `strata mount example.test/commit:1 m >/dev/null; stat -c '%u:%g' m/etc/owned; cat m/etc/config; ls m/data/sub`)
	if shown != "5:6\nnew\nother\n" {
		t.Errorf("the commit shows %q", shown)
	}
	var changes []imagemount.Change
	must(t, json.Unmarshal([]byte(u.ok("diff", "--json", "work")), &changes))
	if len(changes) != 7 {
		t.Errorf("changes: %v", changes)
	}
	if layer := u.ok("diff", "-o", "-", "work"); len(layer) < 1024 || len(layer)%512 != 0 {
		t.Errorf("the layer has %d bytes", len(layer))
	}
	u.ok("rm", "work")
	u.refused(exitNotFound, "work", "rm", "work")
	u.ok("rmi", "example.test/commit:1")
}

// testOtherNamespace has one namespace look at the mounts of another: it sees that they are
// there, and leaves them alone.
func testOtherNamespace(t *testing.T, u *tester, ref string) {
	t.Helper()
	cmd := u.command("unshare", "sh", "-ec", "strata mount "+ref+" m; read line; ls m/data/sub; umount m")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	r := bufio.NewReader(stdout)
	name, err := r.ReadString('\n')
	must(t, err)
	name = strings.TrimSpace(name)
	u.ok("gc")
	if out := u.ok("snapshots", "--format", "{{.Name}} {{.State}}"); !strings.Contains(out, name+" elsewhere\n") {
		t.Errorf("the other mount: %q", out)
	}
	u.refused(1, "another mount namespace", "rm", name)
	_, err = io.WriteString(stdin, "go on\n")
	must(t, err)
	rest, err := io.ReadAll(r)
	if err := errors.Join(err, cmd.Wait()); err != nil || string(rest) != "new\n" {
		t.Errorf("the other namespace: %v, %q", err, rest)
	}
	u.ok("gc") // removes the view
}

// Without subordinate ids the user's own is all there is. What needs others says what is
// missing; the rest works.
func TestSingleID(t *testing.T) {
	for name, tc := range map[string]struct {
		settings userSettings
		says     string
	}{
		"nothing in /etc/subuid": {userSettings{subids: "someone:1:2\n"}, "/etc/subuid: no ids for the user " + testerName},
		"no newuidmap":           {userSettings{subids: testerSubs, path: "/nowhere"}, "the program newuidmap is not installed"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newTester(t, tc.settings)
			r := u.run("unshare", "/bin/cat", "/proc/self/uid_map")
			if got := strings.Fields(r.stdout); r.code != 0 || strings.Join(got, " ") != "0 54321 1" {
				t.Errorf("the map: %+v", r)
			}
			for _, says := range []string{tc.says, "usermod --add-subuids", "install the package uidmap"} {
				if !strings.Contains(r.stderr, says) {
					t.Errorf("unshare does not say %q: %s", says, r.stderr)
				}
			}
			ref := serve(t, owned(t))
			u.refused(exitBadContent, "usermod --add-subuids", "pull", ref)
			u.refused(exitBadContent, "are not mapped in this user namespace", "pull", ref)
			plain := serve(t, plainImage(t))
			u.ok("pull", plain)
			u.ok("unshare", "/bin/mkdir", "m")
			if out := u.ok("unshare", "/bin/sh", "-ec", u.program+" mount "+plain+" m >/dev/null; read line <m/f; echo $line"); out != "mine\n" {
				t.Errorf("the image shows %q", out)
			}
			u.checkStore()
		})
	}
}

// A /dev/fuse that the user may not open is named where fuse-overlayfs has to mount.
func TestClosedFuseDevice(t *testing.T) {
	testutil.RequireTool(t, "fuse-overlayfs", "mount.fuse3")
	u := newTester(t, userSettings{subids: testerSubs, env: []string{"STRATA_MOUNT_PROGRAM=" + config.MountProgramFuse}})
	must(t, os.Chmod(filepath.Join(u.dir, "fuse"), 0o600))
	u.refused(exitFailed, "chmod 0666 /dev/fuse", "images")
}
