// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/snapshottest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// optionSets are the ways to run a snapshotter in.
var optionSets = map[string]Config{
	"default":       {},
	"sync remove":   {SyncRemove: true},
	"no idmapping":  {IDMapping: IDMappingOff},
	"slow chown":    {IDMapping: IDMappingOff, SlowChown: true},
	"not durable":   {Durability: DurabilityNone},
	"fuse":          {MountProgram: MountProgramFuse},
	"mount options": {MountOptions: []string{"index=off", "redirect_dir=off"}},
}

// opening returns what containerd's suite calls for every test: it ends with the
// store checker and a look for mounts that were left.
func opening(t *testing.T, cfg Config, wrap func(*Snapshotter) snapshots.Snapshotter) testsuite.SnapshotterFunc {
	return func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		cfg := cfg
		cfg.Root = filepath.Join(root, cfg.Root)
		cfg.AliasDir = filepath.Join(filepath.Dir(root), "alias")
		s, err := New(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		end := func() error {
			if err := s.Close(); err != nil {
				return err
			}
			again, err := New(ctx, cfg)
			if err != nil {
				return fmt.Errorf("open again: %w", err)
			}
			checkStore(t, again)
			if left := testutil.MountsUnder(t, filepath.Dir(root)); len(left) > 0 {
				t.Errorf("mounts left: %v", left)
			}
			if err := again.Close(); err != nil {
				return err
			}
			fscktest.Clean(t, cfg.Root)
			return nil
		}
		return wrap(s), end, nil
	}
}

func plain(s *Snapshotter) snapshots.Snapshotter { return s }

func TestSuite(t *testing.T) {
	testutil.RequireRoot(t)
	for name, cfg := range optionSets {
		t.Run(name, func(t *testing.T) {
			testsuite.SnapshotterSuite(t, "overlayfs", opening(t, cfg, plain))
		})
	}
}

func TestSuiteLateParent(t *testing.T) {
	testutil.RequireRoot(t)
	testsuite.SnapshotterSuite(t, "overlayfs", opening(t, Config{}, func(s *Snapshotter) snapshots.Snapshotter {
		return snapshottest.NewLateParent(s)
	}))
}

func TestSuiteRemapped(t *testing.T) {
	testutil.RequireRoot(t)
	testsuite.SnapshotterSuite(t, "overlayfs", opening(t, Config{}, func(s *Snapshotter) snapshots.Snapshotter {
		return snapshottest.IdentityMapped{Snapshotter: s}
	}))
}

// Characters that have a meaning in mount options.
func TestSuiteInAwkwardRoots(t *testing.T) {
	testutil.RequireRoot(t)
	for _, name := range []string{"a space", `all : of , them \`} {
		t.Run(name, func(t *testing.T) {
			testsuite.SnapshotterSuite(t, "overlayfs", opening(t, Config{Root: name}, plain))
		})
	}
}

func TestSuiteInUserNamespace(t *testing.T) {
	if !testutil.InUserNS(t, 100000) {
		return
	}
	if os.Geteuid() != 0 {
		t.Fatal("not root in the user namespace")
	}
	testsuite.SnapshotterSuite(t, "overlayfs", opening(t, Config{}, plain))
}
