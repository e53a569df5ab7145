// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// leaveMounts makes what a daemon leaves that is killed in the middle of calls: a
// layer that is extracted onto those below, one with id-mapped layers below it,
// and a directory on which nothing was mounted yet. It returns the directory with
// the mounts, and a file that can be seen through two of them.
func leaveMounts(t *testing.T, at place) (dir, file string) {
	t.Helper()
	base := filepath.Dir(at.root)
	dir = filepath.Join(at.root, tempMountsDir)
	file = filepath.Join(base, "lower", "sub", "file")
	for _, d := range []string{
		filepath.Dir(file), base + "/upper", base + "/work",
		dir + "/containerd-mount1", dir + "/ovl-idmapped2", dir + "/containerd-mount3",
	} {
		must(t, os.MkdirAll(d, 0o700))
	}
	must(t, os.WriteFile(file, []byte("data"), 0o600))
	overlay := mount.Mount{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + base + "/lower", "upperdir=" + base + "/upper", "workdir=" + base + "/work"}}
	must(t, overlay.Mount(dir+"/containerd-mount1"))
	bind := mount.Mount{Type: "bind", Source: base + "/lower", Options: []string{"rbind"}}
	must(t, bind.Mount(dir+"/ovl-idmapped2"))
	return dir, file
}

func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left := testutil.MountsUnder(t, dir); len(left) > 0 {
		t.Errorf("mounts %q are still there", left)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%s has %v, %v", dir, entries, err)
	}
}

// TestLeftMountsAreTakenAway, also one that somebody is in, with what is in them
// left alone.
func TestLeftMountsAreTakenAway(t *testing.T) {
	at := newPlace(t)
	dir, file := leaveMounts(t, at)
	inside, err := os.Open(dir + "/containerd-mount1/sub")
	must(t, err)
	p := startDaemon(t, at.args()...)
	checkNothingLeft(t, dir)
	must(t, inside.Close())
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info, err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "data" {
		t.Errorf("what was mounted has %q, %v", data, err)
	}
	p.stop(t, syscall.SIGTERM)
	if strings.Contains(p.stderr.String(), "level=warning") {
		t.Error("it was not silent about it")
	}
}

// TestMountsOfTheOwnerStay: a daemon that does not get the root, because another
// one has it, leaves the other's mounts alone.
func TestMountsOfTheOwnerStay(t *testing.T) {
	at := newPlace(t)
	p := startDaemon(t, at.args()...)
	dir, _ := leaveMounts(t, at)
	second := place{root: at.root, address: filepath.Join(shortDir(t), "second.sock")}
	_, stderr, code := runCommand(t, second.args()...)
	checkFailure(t, stderr, code, at.root)
	if left := testutil.MountsUnder(t, dir); len(left) != 2 {
		t.Errorf("of two mounts %q are left", left)
	}
	must(t, p.cmd.Process.Kill())
	_ = p.wait() // killed is an error
	p = startDaemon(t, at.args()...)
	checkNothingLeft(t, dir)
	p.stop(t, syscall.SIGTERM)
}

// TestForeignFilesStay: what is not of our making is named in the log and left.
func TestForeignFilesStay(t *testing.T) {
	at := newPlace(t)
	file := filepath.Join(at.root, tempMountsDir, "directory", "file")
	must(t, os.MkdirAll(filepath.Dir(file), 0o700))
	must(t, os.WriteFile(file, nil, 0o600))
	p := startDaemon(t, at.args()...)
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	p.waitForLog(filepath.Dir(file))
	p.stop(t, syscall.SIGTERM)
}

// TestTempMountsOfAnEscapedRoot go where options can name them.
func TestTempMountsOfAnEscapedRoot(t *testing.T) {
	root, link := t.TempDir()+":1", t.TempDir()+"/link"
	must(t, errors.Join(os.Mkdir(root, 0o700), os.Symlink(root, link)))
	t.Cleanup(func() { must(t, os.Remove(root)) })
	for _, path := range []string{root, link} {
		must(t, useTempMounts(t.Context(), path))
		if _, err := os.Stat(filepath.Join(root, tempMountsDir)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: the directory is there: %v", path, err)
		}
	}
	if err := useTempMounts(t.Context(), root+"/none"); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a root that is not there: %v", err)
	}
}
