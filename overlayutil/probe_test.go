// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/testutil"
)

// checkRoot runs CheckRoot and makes sure that it leaves nothing behind.
func checkRoot(t *testing.T, dir string) (Facts, error) {
	t.Helper()
	before, mounts := names(t, dir), testutil.MountsUnder(t, dir)
	facts, err := CheckRoot(dir)
	if after := names(t, dir); !slices.Equal(before, after) {
		t.Errorf("left behind: %v", after)
	}
	if after := testutil.MountsUnder(t, dir); !slices.Equal(mounts, after) {
		t.Errorf("mounts left behind: %v", after)
	}
	return facts, err
}

func mustBe(t *testing.T, name string, f Finding, want Answer) {
	t.Helper()
	if f.Answer != want {
		t.Errorf("%s: %v (%v), want %v", name, f.Answer, f.Reason, want)
	}
	if (f.Answer == Yes) != (f.Reason == nil) {
		t.Errorf("%s: %v with the reason %v", name, f.Answer, f.Reason)
	}
}

func TestCheckRootOnLocalFileSystems(t *testing.T) {
	testutil.RequireRoot(t)
	for _, tc := range []struct {
		name string
		dir  func(t *testing.T) string
	}{
		{"ext4", func(t *testing.T) string { return testutil.LoopFS(t, "ext4", 16, "-q") }},
		{"xfs", func(t *testing.T) string { return testutil.LoopFS(t, "xfs", 320, "-q") }},
		{"tmpfs", func(t *testing.T) string { return testutil.Tmpfs(t) }},
		{"long path", func(t *testing.T) string {
			return mkdir(t, t.TempDir()+strings.Repeat("/"+strings.Repeat("x", 200), 4))
		}},
		{"special characters", func(t *testing.T) string { return mkdir(t, t.TempDir()+"/a b:c,d\\e") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			facts, err := checkRoot(t, tc.dir(t))
			if err != nil {
				t.Fatal(err)
			}
			mustBe(t, "overlay", facts.Overlay, Yes)
			mustBe(t, "userxattr", facts.UserXattr, No)
			mustBe(t, "whiteout", facts.WhiteoutDevice, Yes)
			mustBe(t, "d_type", facts.DType, Yes)
			mustBe(t, "xattr", facts.Xattr, Yes)
			if facts.XattrNamespace() != Trusted {
				t.Error(facts.XattrNamespace())
			}
			if facts.IDMap.Answer == Unknown {
				t.Errorf("id-mapped mounts: %v", facts.IDMap.Reason)
			}
		})
	}
}

func TestCheckRootWithoutDType(t *testing.T) {
	dir, err := testutil.TryLoopFS(t, "xfs", 320, "-q", "-m", "crc=0", "-n", "ftype=0")
	if err != nil {
		t.Skipf("skipped: this machine has no xfs without ftype: %v", err)
	}
	facts, err := checkRoot(t, dir)
	mustBe(t, "d_type", facts.DType, No)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "ftype=1") {
		t.Fatal(err)
	}
}

func TestCheckRootWithoutXattrs(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	testutil.CheckNoMounts(t, dir)
	testutil.MountAll(t, []mount.Mount{{Type: "ramfs", Source: "ramfs"}}, dir)
	facts, err := checkRoot(t, dir)
	mustBe(t, "xattr", facts.Xattr, No)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "extended attribute") {
		t.Fatal(err)
	}
}

func TestCheckRootOnOverlay(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	plan := makeLayers(t, base, "l/%d", 2)
	mounts, err := plan.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	target := mkdir(t, base+"/merged")
	testutil.MountAll(t, mounts, target)
	facts, err := checkRoot(t, target)
	mustBe(t, "overlay", facts.Overlay, No)
	if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "volume") || !strings.Contains(err.Error(), "(overlay)") {
		t.Fatal(err)
	}
	t.Log(err)
}

func TestCheckRootTroubles(t *testing.T) {
	testutil.RequireRoot(t)
	if _, err := CheckRoot(t.TempDir() + "/not/there"); !errdefs.IsNotFound(err) {
		t.Errorf("missing directory: %v", err)
	}
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	testutil.MountAll(t, []mount.Mount{{Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}}}, base)
	facts, err := CheckRoot(base)
	if err != nil {
		t.Errorf("what could not be tried is no reason to refuse: %v", err)
	}
	mustBe(t, "read-only", facts.Overlay, Unknown)
}

func TestCheckRootInUserNamespace(t *testing.T) {
	if !testutil.InUserNS(t, 100000) {
		return
	}
	for _, tc := range []struct {
		name, dir string
		idmap     Answer
	}{{"disk", t.TempDir(), No}, {"tmpfs of the namespace", testutil.Tmpfs(t), Unknown}} {
		facts, err := checkRoot(t, tc.dir)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		mustBe(t, tc.name+" overlay", facts.Overlay, Yes)
		mustBe(t, tc.name+" userxattr", facts.UserXattr, Yes)
		mustBe(t, tc.name+" whiteout", facts.WhiteoutDevice, Yes)
		mustBe(t, tc.name+" xattr", facts.Xattr, Yes)
		mustBe(t, tc.name+" trusted xattr", ProbeXattr(tc.dir, Trusted), No)
		if facts.XattrNamespace() != User || !slices.Contains(facts.MountOptions(nil), "userxattr") {
			t.Errorf("%s: %v %v", tc.name, facts.XattrNamespace(), facts.MountOptions(nil))
		}
		if tc.idmap != Unknown {
			mustBe(t, tc.name+" idmap", facts.IDMap, tc.idmap)
		}
	}
}

// TestAttachedMount: what kernels without detached mounts use works too.
func TestAttachedMount(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	target := mkdir(t, t.TempDir()+"/merged")
	testutil.CheckNoMounts(t, target)
	mustBe(t, "attached", probe(base, func(s *scratch) error {
		return overlayWorks(s, func(tr trial) (view, error) { return mountAttached(tr, target) })
	}), Yes)
	mustBe(t, "attached, refused", probe(base, func(s *scratch) error {
		dirs, err := s.dirs("l")
		if err != nil {
			return err
		}
		_, err = mountAttached(trial{lowers: dirs, options: []string{"nonsense"}}, target)
		return err
	}), No)
}

// TestAttachedTree: so does what kernels before 6.15 need for id-mapped lowers.
func TestAttachedTree(t *testing.T) {
	testutil.RequireRoot(t)
	base := t.TempDir()
	testutil.CheckNoMounts(t, base)
	want := ProbeIDMap(base)
	got := probe(base, func(s *scratch) (err error) {
		dirs, err := s.dirs("lower", "empty")
		if err != nil {
			return err
		}
		if err := s.file("lower", "f"); err != nil {
			return err
		}
		tree, err := idMappedTree(dirs[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		release, err := s.attach(tree)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
		v, err := s.mount(trial{lowers: append(dirs[:0:0], tree, dirs[1])})
		if err != nil {
			return err
		}
		return errors.Join(v.mustOwn("f"), v.close())
	})
	mustBe(t, "attached tree", got, want.Answer)
	if want.Answer != Yes {
		t.Logf("no id-mapped layers here: %v", want.Reason)
	}
}

func TestFind(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want Answer
	}{
		{nil, Yes},
		{refuse("no"), No},
		{fmt.Errorf("x: %w", unix.EINVAL), No},
		{fmt.Errorf("x: %w", unix.ENODEV), No},
		{sysError("x", unix.EPERM), No},
		{unix.ENOSPC, Unknown},
		{unix.EIO, Unknown},
		{errors.New("x"), Unknown},
	} {
		mustBe(t, fmt.Sprint(tc.err), find(tc.err), tc.want)
	}
}

func TestModuleParameter(t *testing.T) {
	mustBe(t, "no such", ModuleParameter("no_such_parameter"), Unknown)
	mustBe(t, "path", ModuleParameter("../initstate"), Unknown)
	mustBe(t, "number", ModuleParameter("redirect_max"), Unknown)
	if f := ModuleParameter("index"); f.Answer == Unknown && !errdefs.IsNotFound(f.Reason) {
		t.Errorf("index: %v", f.Reason)
	}
}

func TestMountOptions(t *testing.T) {
	yes, no := Finding{Answer: Yes}, Finding{Answer: No}
	for _, tc := range []struct {
		name  string
		facts Facts
		user  []string
		want  []string
	}{
		{"nothing known", Facts{}, nil, nil},
		{"index known", Facts{Index: no}, nil, []string{"index=off"}},
		{"user's index", Facts{Index: yes}, []string{"index=on"}, []string{"index=on"}},
		{"user's index in one string", Facts{Index: yes}, []string{"xino=off,index=on"}, []string{"xino=off,index=on"}},
		{"metacopy on", Facts{Metacopy: yes}, []string{"volatile"}, []string{"volatile", "metacopy=off"}},
		{"metacopy off", Facts{Metacopy: no}, nil, nil},
		{"user's metacopy", Facts{Metacopy: yes}, []string{"metacopy=on"}, []string{"metacopy=on"}},
		{"user namespace", Facts{UserXattr: yes, Index: no}, nil, []string{"userxattr", "index=off"}},
		{"user's userxattr", Facts{UserXattr: yes}, []string{"userxattr"}, []string{"userxattr"}},
	} {
		if got := tc.facts.MountOptions(tc.user); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
