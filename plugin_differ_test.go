// SPDX-License-Identifier: Apache-2.0

package strata_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.etcd.io/bbolt"

	"github.com/strata-snapshotter/strata"
	"github.com/strata-snapshotter/strata/config"
)

func differRegistration(t *testing.T) plugin.Registration {
	t.Helper()
	all := slices.DeleteFunc(registry.Graph(func(*plugin.Registration) bool { return false }), func(r plugin.Registration) bool {
		return r.URI() != "io.containerd.differ.v1.strata"
	})
	if len(all) != 1 {
		t.Fatalf("registered %d times", len(all))
	}
	return all[0]
}

// containerdWith is a set of initialized plugins as containerd has it by the time of
// the differ: with metadata and leases, and what else is given.
func containerdWith(t *testing.T, others ...plugin.Registration) *plugin.Set {
	t.Helper()
	dir := t.TempDir()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	bolt, err := bbolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bolt.Close(); err != nil {
			t.Error(err)
		}
	})
	db := metadata.NewDB(bolt, blobs, nil)
	others = append(others,
		plugin.Registration{Type: plugins.MetadataPlugin, ID: "bolt", InitFn: func(*plugin.InitContext) (any, error) { return db, nil }},
		plugin.Registration{Type: plugins.LeasePlugin, ID: "manager", InitFn: func(*plugin.InitContext) (any, error) {
			return leases.Manager(metadata.NewLeaseManager(db)), nil
		}})
	set := plugin.NewPluginSet()
	for _, r := range others {
		if err := set.Add(r.Init(plugin.NewContext(t.Context(), set, nil))); err != nil {
			t.Fatal(err)
		}
	}
	return set
}

// initializeDiffer does what containerd does with the registration and what its
// configuration file changes.
func initializeDiffer(t *testing.T, others *plugin.Set, change func(*strata.DifferConfig)) *plugin.Plugin {
	t.Helper()
	r := differRegistration(t)
	cfg := *r.Config.(*strata.DifferConfig)
	change(&cfg)
	ic := plugin.NewContext(t.Context(), others, nil)
	ic.Config = &cfg
	return r.Init(ic)
}

func TestDifferLimits(t *testing.T) {
	if got := differRegistration(t).Config.(*strata.DifferConfig).Limits; got != config.DefaultLimits() {
		t.Errorf("defaults are %+v", got)
	}
	p := initializeDiffer(t, containerdWith(t), func(c *strata.DifferConfig) { c.Limits.Bytes = -1 })
	if !errdefs.IsInvalidArgument(p.Err()) {
		t.Errorf("a wrong limit gives %v", p.Err())
	}
	ic := plugin.NewContext(t.Context(), containerdWith(t), nil)
	if p := differRegistration(t).Init(ic); !errdefs.IsInvalidArgument(p.Err()) {
		t.Errorf("no configuration gives %v", p.Err())
	}
}

func TestInitializeDiffer(t *testing.T) {
	broken := plugin.Registration{Type: plugins.SnapshotPlugin, ID: strata.PluginID, InitFn: func(*plugin.InitContext) (any, error) {
		return nil, errors.New("the disk is broken")
	}}
	for name, others := range map[string][]plugin.Registration{
		"without the snapshotter": nil,
		"snapshotter is broken":   {broken},
	} {
		t.Run(name, func(t *testing.T) {
			p := initializeDiffer(t, containerdWith(t, others...), func(*strata.DifferConfig) {})
			instance, err := p.Instance()
			if err != nil {
				t.Fatal(err)
			}
			// What containerd's diff-service wants of a differ.
			d, ok := instance.(interface {
				diff.Applier
				diff.Comparer
			})
			if !ok {
				t.Fatalf("%T is no differ", instance)
			}
			if _, err := d.Apply(t.Context(), ocispec.Descriptor{MediaType: "x/unknown"}, nil); !errdefs.IsNotImplemented(err) {
				t.Error(err)
			}
			if !slices.ContainsFunc(p.Meta.Platforms, platforms.Default().Match) {
				t.Errorf("platforms are %v", p.Meta.Platforms)
			}
		})
	}
}

func TestDifferNeedsMetadata(t *testing.T) {
	p := initializeDiffer(t, plugin.NewPluginSet(), func(*strata.DifferConfig) {})
	if !errors.Is(p.Err(), plugin.ErrPluginNotFound) {
		t.Error(p.Err())
	}
}
