// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v3"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck"
	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/internal/layertest"
	"github.com/strata-snapshotter/strata/internal/testutil"
	"github.com/strata-snapshotter/strata/internal/testutil/testregistry"
)

// TestOwnershipOverrideStat is the whole life of an image as an ordinary user, who has no
// user namespace either.
func TestOwnershipOverrideStat(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	r := imageRoot{t, filepath.Join(t.TempDir(), "images")}
	reg := testregistry.Start(t)
	ref := reg.Push(t, "fixed:1", fixedImage(t))
	r.works("--ownership", "override-stat", "pull", "-q", ref)
	layers := strings.Fields(r.works("layers", ref)) // the store knows what it is
	tree, err := layertest.DumpOverride(layers...)
	noError(t, err)
	if got := tree["/etc/issue"]; !strings.HasPrefix(got, `file["issue\n"] 0644 7:8 `) {
		t.Errorf("/etc/issue is %s", got)
	}
	if _, there := tree["/etc/motd"]; there {
		t.Error("/etc/motd was deleted and is there")
	}
	for _, dir := range layers {
		info, err := os.Stat(dir)
		noError(t, err)
		if !info.IsDir() {
			t.Errorf("%s is no directory", dir)
		}
	}
	reg.Requests()
	r.works("pull", "-q", ref)
	if n := len(reg.Requests()); n != 0 {
		t.Errorf("a second pull made %d requests", n)
	}
	file := filepath.Join(t.TempDir(), "saved.tar")
	r.works("save", ref, "-o", file)
	r.works("rmi", ref)
	r.works("gc")
	r.works("load", file)
	if again := r.works("layers", "--lowerdir", ref); strings.Count(again, ":") != len(layers)-1 {
		t.Errorf("after load the layers are %q, and were %q", again, layers)
	}
	if !strings.Contains(r.works("images"), "complete") {
		t.Error("the image is not complete")
	}
	// By the library: the command would go on in a user namespace.
	options := config.Default().Snapshotter
	store, err := imagestore.Open(t.Context(), imagestore.Options{Root: r.dir, Snapshotter: &options})
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "override-stat") {
		t.Errorf("with the other ownership: %v, %v", store, err)
	}
	report, err := fsck.Check(context.Background(), fsck.Options{Root: filepath.Join(r.dir, "store")})
	noError(t, err)
	for _, f := range report.Findings {
		if f.Code != fsck.CodeTrashLeft {
			t.Errorf("fsck: %+v", f)
		}
	}
	testutil.CheckNoMounts(t, r.dir)
}

// TestOwnershipFlag: an ordinary user's store of real owners needs a user namespace, one
// with attributes does not, and it is known without the flag.
func TestOwnershipFlag(t *testing.T) {
	if !testutil.AsUser(t) {
		return
	}
	old := filepath.Join(t.TempDir(), "old")
	noError(t, os.MkdirAll(filepath.Join(old, "store"), 0o700))
	noError(t, os.WriteFile(filepath.Join(old, "store", "ownership"), []byte("override-stat\n"), 0o600))
	for _, c := range []struct {
		args []string
		want bool
	}{
		{[]string{"--root", filepath.Join(t.TempDir(), "new")}, true},
		{[]string{"--root", filepath.Join(t.TempDir(), "new"), "--ownership", "override-stat"}, false},
		{[]string{"--root", old}, false},
		{[]string{"--root", filepath.Join(old, "store")}, false},
		{[]string{"--root", old, "--ownership", "real"}, true},
	} {
		cmd := newCommand()
		var got bool
		cmd.Commands = nil
		cmd.Action = asks(&got)
		noError(t, cmd.Run(context.Background(), append([]string{name}, c.args...)))
		if got != c.want {
			t.Errorf("%q: needs a user namespace: %v", c.args, got)
		}
	}
}

// asks notes what needsUserNamespace says.
func asks(answer *bool) cli.ActionFunc {
	return func(_ context.Context, cmd *cli.Command) error {
		*answer = needsUserNamespace(cmd)
		return nil
	}
}
