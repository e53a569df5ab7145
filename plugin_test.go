// SPDX-License-Identifier: Apache-2.0

package strata_test

import (
	"context"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/pelletier/go-toml/v2"

	"github.com/strata-snapshotter/strata"
	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/fsck/fscktest"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// registrations are those of this module, in containerd's global registry.
func registrations() []plugin.Registration {
	all := registry.Graph(func(*plugin.Registration) bool { return false })
	return slices.DeleteFunc(all, func(r plugin.Registration) bool {
		return r.URI() != "io.containerd.snapshotter.v1.strata"
	})
}

func TestRegisteredOnce(t *testing.T) {
	strata.Register()
	strata.Register()
	found := registrations()
	if len(found) != 1 {
		t.Fatalf("registered %d times", len(found))
	}
	if found[0].Type != plugins.SnapshotPlugin || found[0].ID != strata.PluginID {
		t.Errorf("registered as %s", found[0].URI())
	}
}

// TestConfigKeys keeps the names that containerd's overlayfs plugin has.
func TestConfigKeys(t *testing.T) {
	cfg := *registrations()[0].Config.(*strata.Config)
	if cfg.Limits != config.DefaultLimits() || cfg.Durability != "commit" || cfg.IDMappedMounts != "auto" {
		t.Errorf("defaults are %+v", cfg)
	}
	err := toml.Unmarshal([]byte(`
root_path = '/r'
upperdir_label = true
sync_remove = true
slow_chown = true
mount_options = ['volatile']
durability = 'none'
idmapped_mounts = 'off'
mount_program = 'kernel'
sharing = 'namespace'
unpack_ahead = 3
additional_stores = ['/usr/share/strata']
verify = 'metadata'
ownership = 'override-stat'
[limits]
bytes = 7
`), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	limits := config.DefaultLimits()
	limits.Bytes = 7
	want := strata.Config{
		RootPath: "/r", UpperdirLabel: true, SyncRemove: true, SlowChown: true,
		MountOptions: []string{"volatile"}, Durability: "none", IDMappedMounts: "off",
		MountProgram: "kernel",
		Sharing:      "namespace", UnpackAhead: 3, AdditionalStores: []string{"/usr/share/strata"}, Verify: "metadata",
		Ownership: "override-stat",
		Limits:    limits,
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got %+v\nwant %+v", cfg, want)
	}
}

func TestInitialize(t *testing.T) {
	testutil.RequireRoot(t)
	base := testutil.Tmpfs(t)
	for name, test := range map[string]struct {
		rootPath, root string
	}{
		"under containerd's root": {"", filepath.Join(base, "property")},
		"root_path":               {filepath.Join(base, "path"), filepath.Join(base, "path")},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := *registrations()[0].Config.(*strata.Config)
			cfg.RootPath = test.rootPath
			fscktest.AtEnd(t, test.root)
			p := initialize(&cfg, filepath.Join(base, "property"))
			instance, err := p.Instance()
			if err != nil {
				t.Fatal(err)
			}
			sn := instance.(snapshots.Snapshotter)
			if _, ok := instance.(snapshots.Cleaner); !ok {
				t.Error("the snapshotter is no Cleaner")
			}
			if _, err := sn.Prepare(t.Context(), "a", ""); err != nil {
				t.Error(err)
			}
			if got := p.Meta.Exports[plugins.SnapshotterRootDir]; got != test.root {
				t.Errorf("exported root is %q, want %q", got, test.root)
			}
			if !slices.ContainsFunc(p.Meta.Platforms, platforms.Default().Match) {
				t.Errorf("platforms are %v", p.Meta.Platforms)
			}
			capable := instance.(interface{ Capabilities() []string }).Capabilities()
			if !slices.Equal(p.Meta.Capabilities, capable) {
				t.Errorf("capabilities are %q, want %q", p.Meta.Capabilities, capable)
			}
			if err := instance.(io.Closer).Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestInitializeRefuses(t *testing.T) {
	changed := func(change func(*strata.Config)) *strata.Config {
		cfg := *registrations()[0].Config.(*strata.Config)
		change(&cfg)
		return &cfg
	}
	for name, cfg := range map[string]any{
		"another type":    "config",
		"mount option":    changed(func(c *strata.Config) { c.MountOptions = []string{"upperdir=/x"} }),
		"unknown value":   changed(func(c *strata.Config) { c.Durability = "maybe" }),
		"unknown mapping": changed(func(c *strata.Config) { c.IDMappedMounts = "on" }),
		"wrong limit":     changed(func(c *strata.Config) { c.Limits.NameBytes = 0 }),
	} {
		if err := initialize(cfg, t.TempDir()).Err(); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s gives %v", name, err)
		}
	}
}

// initialize does what containerd does with a registration.
func initialize(cfg any, root string) *plugin.Plugin {
	ic := plugin.NewContext(context.Background(), plugin.NewPluginSet(), map[string]string{plugins.PropertyRootDir: root})
	ic.Config = cfg
	return registrations()[0].Init(ic)
}
