// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

const (
	uidMap = "0:100000:1000,1000:700000:1000"
	gidMap = "0:200000:2000"
)

func owners(t *testing.T, path string) [2]uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return [2]uint32{st.Uid, st.Gid}
}

// commitOwned makes a base layer with files of several owners.
func commitOwned(t *testing.T, s *Snapshotter) {
	t.Helper()
	prepare(t, s, "tmp", "")
	dir := upper(t, s, "tmp")
	write(t, filepath.Join(dir, "root"), "x")
	write(t, filepath.Join(dir, "d/user"), "x")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Chown(filepath.Join(dir, "d/user"), 1001, 5))
	must(os.Chmod(filepath.Join(dir, "d/user"), 0o755|os.ModeSetuid|os.ModeSetgid))
	must(os.Symlink("nowhere", filepath.Join(dir, "link")))
	must(os.Lchown(filepath.Join(dir, "link"), 7, 7))
	must(os.Link(filepath.Join(dir, "root"), filepath.Join(dir, "again")))
	must(unix.Setxattr(filepath.Join(dir, "root"), capabilityXattr, fileCapability, 0))
	mustCommit(t, s, "base", "tmp")
}

// fileCapability is cap_net_bind_service+ep as setcap(8) writes it (version 2).
var fileCapability = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func checkMapped(t *testing.T, dir string) {
	t.Helper()
	for rel, want := range map[string][2]uint32{
		".": {100000, 200000}, "root": {100000, 200000}, "again": {100000, 200000}, "d": {100000, 200000},
		"d/user": {700001, 200005}, "link": {100007, 200007},
	} {
		if got := owners(t, filepath.Join(dir, rel)); got != want {
			t.Errorf("%s belongs to %v, want %v", rel, got, want)
		}
	}
	fi, err := os.Stat(filepath.Join(dir, "d/user"))
	if err != nil || fi.Mode()&(os.ModeSetuid|os.ModeSetgid) != os.ModeSetuid|os.ModeSetgid {
		t.Errorf("d/user: %v, %v", fi.Mode(), err)
	}
}

func TestMappedIDs(t *testing.T) {
	for name, cfg := range map[string]Config{
		"idmapped mounts": {},
		"slow chown":      {IDMapping: IDMappingOff, SlowChown: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, cfg)
			if cfg.IDMapping == "" && !s.idmap {
				t.Fatal("this kernel, or the file system of the temporary directory, has no idmapped mounts")
			}
			commitOwned(t, s)
			opt := labels(uidLabel, uidMap, gidLabel, gidMap)
			m := prepare(t, s, "c", "base", opt)
			mounted(t, m, func(dir string) {
				checkMapped(t, dir)
				write(t, filepath.Join(dir, "new"), "x")
				if cfg.SlowChown {
					value := make([]byte, maxCapability)
					n, err := unix.Getxattr(filepath.Join(dir, "root"), capabilityXattr, value)
					if err != nil || !slices.Equal(value[:n], fileCapability) {
						t.Errorf("capabilities: %x, %v", value[:max(n, 0)], err)
					}
				}
			})
			// The layer itself stays as it was.
			if got := owners(t, filepath.Join(upper(t, s, "base"), "d/user")); got != [2]uint32{1001, 5} {
				t.Errorf("the layer's file belongs to %v", got)
			}
		})
	}
}

func TestMappedView(t *testing.T) {
	s := open(t, Config{})
	commitOwned(t, s)
	m, err := s.View(ctx, "v", "base", labels(uidLabel, uidMap, gidLabel, gidMap))
	if err != nil {
		t.Fatal(err)
	}
	mounted(t, m, func(dir string) { checkMapped(t, dir) })
}

// Without layers the directory is bound, and mapped as a whole: what the root of
// the namespace writes belongs to it, and is root's in the layer.
func TestMappedBind(t *testing.T) {
	for name, cfg := range map[string]Config{
		"idmapped mounts": {},
		"slow chown":      {IDMapping: IDMappingOff, SlowChown: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, cfg)
			m := prepare(t, s, "c", "", labels(uidLabel, uidMap, gidLabel, gidMap))
			mounted(t, m, func(dir string) {
				if got := owners(t, dir); got != [2]uint32{100000, 200000} {
					t.Errorf("the root belongs to %v", got)
				}
			})
		})
	}
}

func TestMappingThatIsNotPossible(t *testing.T) {
	opt := labels(uidLabel, uidMap, gidLabel, gidMap)
	t.Run("no way", func(t *testing.T) {
		s := open(t, Config{IDMapping: IDMappingOff})
		commitOwned(t, s)
		before := everything(t, s)
		if _, err := s.Prepare(ctx, "c", "base", opt); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("got %v", err)
		}
		if after := everything(t, s); !slices.Equal(before, after) {
			t.Errorf("left behind: %v", after)
		}
	})
	t.Run("view by chown", func(t *testing.T) {
		s := open(t, Config{IDMapping: IDMappingOff, SlowChown: true})
		commitOwned(t, s)
		if _, err := s.View(ctx, "v", "base", opt); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an owner that is not mapped", func(t *testing.T) {
		s := open(t, Config{IDMapping: IDMappingOff, SlowChown: true})
		commitOwned(t, s)
		before := everything(t, s)
		few := labels(uidLabel, "0:100000:10", gidLabel, "0:100000:10")
		if _, err := s.Prepare(ctx, "c", "base", few); !errdefs.IsInvalidArgument(err) {
			t.Errorf("got %v", err)
		}
		if err := s.Cleanup(ctx); err != nil {
			t.Error(err)
		}
		if after := everything(t, s); !slices.Equal(before, after) {
			t.Errorf("left behind: %v", after)
		}
	})
}

// An image can bring annotations that become labels of the snapshots it is
// unpacked into.
func TestMappingOfAnExtractionIsIgnored(t *testing.T) {
	s := open(t, Config{})
	for i, value := range []string{"0:100000:65536", "0:1000:65536,lowerdir=/etc", "nonsense"} {
		key := fmt.Sprintf("default/%d/extract-1 sha256:x", i)
		m := prepare(t, s, key, "", labels(uidLabel, value, gidLabel, value))
		for _, o := range m[0].Options {
			if strings.Contains(o, "map=") || strings.Contains(o, "/etc") {
				t.Errorf("%s: options %v", value, m[0].Options)
			}
		}
		if got := owners(t, upper(t, s, key)); got != [2]uint32{} {
			t.Errorf("%s: the upper directory belongs to %v", value, got)
		}
	}
}

func TestCapabilities(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  Config
		want []string
	}{
		"default":    {Config{}, []string{"remap-ids", "only-remap-ids", "rebase"}},
		"slow chown": {Config{SlowChown: true}, []string{"remap-ids", "rebase"}},
		"off":        {Config{IDMapping: IDMappingOff}, []string{"only-remap-ids", "rebase"}},
	} {
		if got := open(t, tc.cfg).Capabilities(); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
