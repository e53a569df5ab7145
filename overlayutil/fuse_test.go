// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

func TestCheckRootFuse(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.RequireTool(t, "fuse-overlayfs", "mount.fuse3")
	dir := testutil.Tmpfs(t)
	facts, err := CheckRootFuse(dir)
	if err != nil {
		t.Fatal(err)
	}
	if facts.Overlay.Answer != Yes || facts.Type != FuseOverlayfs || facts.XattrNamespace() != Trusted {
		t.Errorf("facts: %+v", facts)
	}
	if got := facts.MountOptions([]string{"noacl"}); len(got) != 1 || got[0] != "noacl" {
		t.Errorf("mount options: %q", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}

// In a user namespace the marks are user.overlay.*, whoever mounts.
func TestCheckRootFuseInUserNS(t *testing.T) {
	testutil.RequireTool(t, "fuse-overlayfs", "mount.fuse3")
	if !testutil.InUserNS(t, 0) {
		return
	}
	facts, err := CheckRootFuse(testutil.Tmpfs(t))
	if err != nil {
		t.Fatal(err)
	}
	if facts.XattrNamespace() != User {
		t.Errorf("facts: %+v", facts)
	}
}

// What is missing is named, with where to get it.
func TestCheckRootFuseMissing(t *testing.T) {
	testutil.RequireRoot(t)
	for _, tc := range []struct {
		name     string
		programs []string
		want     string
	}{
		{"nothing", nil, "install the package fuse-overlayfs"},
		{"no mount.fuse3", []string{"fuse-overlayfs"}, "install the package fuse3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bin := t.TempDir()
			for _, name := range tc.programs {
				if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin)
			_, err := CheckRootFuse(testutil.Tmpfs(t))
			if !errors.Is(err, errdefs.ErrFailedPrecondition) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want a failed precondition with %q", err, tc.want)
			}
		})
	}
}

func TestPlanFuse(t *testing.T) {
	lowers := make([]string, 600)
	for i := range lowers {
		lowers[i] = "/root/layers/" + strings.Repeat("1", i%5+1) + "/fs"
	}
	plan := Plan{Type: FuseOverlayfs, Lowers: lowers, Upper: "/root/u", Work: "/root/w", Empty: "/root/e"}
	mounts, err := plan.Mounts()
	if err != nil {
		t.Fatal(err) // a page of options and 500 layers are the kernel's limits
	}
	if len(mounts) != 1 || mounts[0].Type != FuseOverlayfs {
		t.Errorf("mounts: %+v", mounts)
	}
	plan.UIDMap, plan.GIDMap = "0:1000:10", "0:1000:10"
	if _, err := plan.Mounts(); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("with an id mapping: %v", err)
	}
	plan = Plan{Type: FuseOverlayfs, Lowers: []string{"/" + strings.Repeat("l", 70000)}, Empty: "/e"}
	if _, err := plan.Mounts(); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("with options longer than an argument: %v", err)
	}
	if _, err := (Plan{Type: "fuse.other", Empty: "/e"}).Mounts(); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("with another type: %v", err)
	}
}
