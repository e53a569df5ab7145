// SPDX-License-Identifier: Apache-2.0

package strata

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/diff"
	"github.com/strata-snapshotter/strata/service"
)

// DifferConfig is the table [plugins.'io.containerd.differ.v1.strata'] of
// containerd's configuration. What else the differ needs to know, the snapshotter
// and containerd know.
type DifferConfig struct {
	// Limits bound the layers that are extracted for other snapshotters, see
	// config.Limits. For its own snapshots Config.Limits hold.
	Limits config.Limits `toml:"limits"`
}

// differRegistration is io.containerd.differ.v1.strata.
func differRegistration() *plugin.Registration {
	return &plugin.Registration{
		Type:     plugins.DiffPlugin,
		ID:       PluginID,
		Requires: []plugin.Type{plugins.MetadataPlugin, plugins.LeasePlugin, plugins.ContentPlugin, plugins.SnapshotPlugin},
		Config:   &DifferConfig{Limits: config.DefaultLimits()},
		InitFn:   initializeDiffer,
	}
}

func initializeDiffer(ic *plugin.InitContext) (any, error) {
	cfg, ok := ic.Config.(*DifferConfig)
	if !ok {
		return nil, fmt.Errorf("configuration of differ %s has type %T: %w", PluginID, ic.Config, errdefs.ErrInvalidArgument)
	}
	services, err := services(ic)
	if err != nil {
		return nil, fmt.Errorf("differ %s: %w", PluginID, err)
	}
	sn, root := snapshotterOf(ic)
	differ, err := service.OpenDiffer(services, sn, root, cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("differ %s: %w", PluginID, err)
	}
	ic.Meta.Platforms = append(ic.Meta.Platforms, platforms.DefaultSpec())
	return differ, nil
}

// services are those of the containerd around.
func services(ic *plugin.InitContext) (s diff.Services, err error) {
	instance, err := ic.GetSingle(plugins.MetadataPlugin)
	if err != nil {
		return s, err
	}
	db, ok := instance.(*metadata.DB)
	if !ok {
		return s, fmt.Errorf("containerd's metadata has type %T: %w", instance, errdefs.ErrFailedPrecondition)
	}
	s.Content = db.ContentStore()
	if instance, err = ic.GetSingle(plugins.LeasePlugin); err != nil {
		return s, err
	}
	if s.Leases, ok = instance.(leases.Manager); !ok {
		return s, fmt.Errorf("containerd's leases have type %T: %w", instance, errdefs.ErrFailedPrecondition)
	}
	s.Root = contentRoot(ic)
	return s, nil
}

// contentRoot is where containerd's own content store says it keeps its blobs.
func contentRoot(ic *plugin.InitContext) func(context.Context) (string, error) {
	p := ic.Plugins().Get(plugins.ContentPlugin, "content")
	if p == nil || p.Err() != nil || p.Meta.Exports["root"] == "" {
		return nil
	}
	root := p.Meta.Exports["root"]
	return func(context.Context) (string, error) { return root, nil }
}

// snapshotterOf is the snapshotter of this package and its root, or neither. Where
// it is disabled or could not start, the differ serves others: one that failed
// would take containerd's whole diff-service along.
func snapshotterOf(ic *plugin.InitContext) (snapshots.Snapshotter, string) {
	p := ic.Plugins().Get(plugins.SnapshotPlugin, PluginID)
	if p == nil {
		return nil, ""
	}
	instance, err := p.Instance()
	if err != nil {
		log.G(ic.Context).WithError(err).Warnf("differ %s works without the snapshotter", PluginID)
		return nil, ""
	}
	sn, ok := instance.(snapshots.Snapshotter)
	if !ok {
		return nil, ""
	}
	return sn, p.Meta.Exports[plugins.SnapshotterRootDir]
}
