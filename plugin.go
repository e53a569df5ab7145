// SPDX-License-Identifier: Apache-2.0

// Package strata compiles the Strata snapshotter and its differ into containerd: a
// blank import in a custom containerd's main package registers the plugins
// io.containerd.snapshotter.v1.strata and io.containerd.differ.v1.strata.
//
//	import _ "github.com/strata-snapshotter/strata"
package strata

import (
	"fmt"
	"sync"

	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/version"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/service"
)

// PluginID is the snapshotter's name in containerd, the one for --snapshotter
// and for the CRI plugin's configuration, and the differ's, for unpack_config and
// the diff-service.
const PluginID = "strata"

// Config is the table [plugins.'io.containerd.snapshotter.v1.strata'] of
// containerd's configuration. Keys that the overlayfs plugin has too mean the
// same here.
type Config struct {
	// RootPath is the absolute path of the root directory; empty means the
	// plugin's directory under containerd's own root.
	RootPath string `toml:"root_path"`
	// UpperdirLabel adds the upper directory's path to a snapshot's labels.
	UpperdirLabel bool `toml:"upperdir_label"`
	// SyncRemove makes Remove wait until a removed snapshot's files are gone.
	SyncRemove bool `toml:"sync_remove"`
	// SlowChown allows a recursive chown where idmapped mounts can't be used.
	SlowChown bool `toml:"slow_chown"`
	// MountOptions are added to every overlay mount, one option an element.
	MountOptions []string `toml:"mount_options"`
	// MountProgram is "auto", "kernel" or "fuse-overlayfs", see config.Snapshotter.
	MountProgram string `toml:"mount_program"`
	// Durability is "commit" or "none", see config.Snapshotter.
	Durability string `toml:"durability"`
	// IDMappedMounts is "auto" or "off", see config.Snapshotter.
	IDMappedMounts string `toml:"idmapped_mounts"`
	// Sharing is "all", "namespace" or "off", see config.Snapshotter.
	Sharing string `toml:"sharing"`
	// UnpackAhead is how many of an image's next layers are unpacked at once while
	// one is that was asked for.
	UnpackAhead int `toml:"unpack_ahead"`
	// AdditionalStores are absolute paths of read-only layer stores, in order.
	AdditionalStores []string `toml:"additional_stores"`
	// Verify is "full", "metadata" or "none", see config.Snapshotter.
	Verify string `toml:"verify"`
	// Ownership is "real" or "override-stat", see config.Snapshotter.
	Ownership string `toml:"ownership"`
	// Limits bound the layers that are extracted into snapshots of this plugin,
	// see config.Limits.
	Limits config.Limits `toml:"limits"`
}

// once guards the registration: the registry panics when an ID comes twice,
// and importing this package has already registered it.
var once sync.Once

func init() { Register() }

// Register adds snapshotter and differ to containerd's plugin registry. Importing
// the package does so already; calling it again is safe and changes nothing.
func Register() {
	once.Do(func() {
		registry.Register(&plugin.Registration{
			Type:   plugins.SnapshotPlugin,
			ID:     PluginID,
			Config: defaultConfig(),
			InitFn: initialize,
		})
		registry.Register(differRegistration())
	})
}

func defaultConfig() *Config {
	options := config.Default().Snapshotter
	return &Config{
		UpperdirLabel:    options.UpperdirLabel,
		SyncRemove:       options.SyncRemove,
		SlowChown:        options.SlowChown,
		MountOptions:     options.MountOptions,
		MountProgram:     options.MountProgram,
		Durability:       options.Durability,
		IDMappedMounts:   options.IDMappedMounts,
		Sharing:          options.Sharing,
		UnpackAhead:      options.UnpackAhead,
		AdditionalStores: options.AdditionalStores,
		Verify:           options.Verify,
		Ownership:        options.Ownership,
		Limits:           config.DefaultLimits(),
	}
}

// initialize opens the snapshotter for containerd, which closes it when it
// ends.
func initialize(ic *plugin.InitContext) (any, error) {
	cfg, ok := ic.Config.(*Config)
	if !ok {
		return nil, fmt.Errorf("configuration of snapshotter %s has type %T: %w", PluginID, ic.Config, errdefs.ErrInvalidArgument)
	}
	root := ic.Properties[plugins.PropertyRootDir]
	if cfg.RootPath != "" {
		root = cfg.RootPath
	}
	sn, err := service.OpenSnapshotter(ic.Context, service.Opening{
		Root: root, Options: cfg.options(), Limits: cfg.Limits,
		// containerd is the one that this was compiled with.
		Staging: service.StagingOf(version.Version),
	})
	if err != nil {
		return nil, fmt.Errorf("snapshotter %s: %w", PluginID, err)
	}
	ic.Meta.Platforms = append(ic.Meta.Platforms, platforms.DefaultSpec())
	ic.Meta.Capabilities = append(ic.Meta.Capabilities, sn.Capabilities()...)
	ic.Meta.Exports[plugins.SnapshotterRootDir] = root
	return sn, nil
}

func (c *Config) options() config.Snapshotter {
	return config.Snapshotter{
		SyncRemove:       c.SyncRemove,
		UpperdirLabel:    c.UpperdirLabel,
		SlowChown:        c.SlowChown,
		IDMappedMounts:   c.IDMappedMounts,
		MountOptions:     c.MountOptions,
		MountProgram:     c.MountProgram,
		Durability:       c.Durability,
		Sharing:          c.Sharing,
		UnpackAhead:      c.UnpackAhead,
		AdditionalStores: c.AdditionalStores,
		Verify:           c.Verify,
		Ownership:        c.Ownership,
	}
}
