// SPDX-License-Identifier: Apache-2.0

package config

import "github.com/strata-snapshotter/strata/internal/advice"

// Version is the only value the key "version" may have. It rises when a key
// changes its meaning, so that an old file is refused rather than misread.
const Version = 1

// DefaultPath is the file the daemon reads when it is not told another one.
// This file alone may be missing: the daemon then runs on Default.
const DefaultPath = "/etc/containerd-strata-grpc/config.toml"

// Values of Snapshotter.IDMappedMounts.
const (
	// IDMappedMountsAuto uses idmapped mounts where the kernel and the file
	// system of the root are found to support them.
	IDMappedMountsAuto = "auto"
	// IDMappedMountsOff never uses them.
	IDMappedMountsOff = "off"
)

// Values of Snapshotter.Durability.
const (
	// DurabilityCommit syncs a layer and the metadata before Commit answers.
	DurabilityCommit = "commit"
	// DurabilityNone leaves writing back to the kernel: for roots that need
	// not survive a power loss.
	DurabilityNone = "none"
)

// Values of Snapshotter.MountProgram.
const (
	// MountProgramAuto is the kernel, and fuse-overlayfs where the kernel can't.
	MountProgramAuto = "auto"
	// MountProgramKernel is the kernel's overlay.
	MountProgramKernel = "kernel"
	// MountProgramFuse is fuse-overlayfs.
	MountProgramFuse = "fuse-overlayfs"
)

// Values of Snapshotter.Sharing.
const (
	// SharingAll lets a layer serve every image of every containerd namespace.
	SharingAll = "all"
	// SharingNamespace makes a namespace pull a layer once itself before it has it.
	SharingNamespace = "namespace"
	// SharingOff keeps a layer for the chain that it was extracted for.
	SharingOff = "off"
)

// Values of Snapshotter.Verify.
const (
	// VerifyFull reads a layer's metadata and files.
	VerifyFull = "full"
	// VerifyMetadata reads a layer's metadata.
	VerifyMetadata = "metadata"
	// VerifyNone believes the store.
	VerifyNone = "none"
)

// Values of Snapshotter.Ownership.
const (
	// OwnershipReal keeps owners and modes in the files themselves.
	OwnershipReal = "real"
	// OwnershipOverrideStat keeps them in user.containers.override_stat, without any
	// privilege.
	OwnershipOverrideStat = "override-stat"
)

// Values of Config.LogFormat.
const (
	// LogFormatText is one human-readable line an entry.
	LogFormatText = "text"
	// LogFormatJSON is one JSON object an entry.
	LogFormatJSON = "json"
)

// Config is everything the daemon can be told. The zero value is not valid:
// start from Default.
type Config struct {
	// Version is the format of the file, always 1.
	Version int `toml:"version" comment:"Format of this file."`
	// Root is the absolute path of the directory that holds layers, snapshots
	// and metadata.
	Root string `toml:"root" comment:"Directory for layers, snapshots and metadata. One daemon owns it.\nIt has to be on a file system that can be an overlay upper directory."`
	// Address is the absolute path of the socket the daemon serves, at most
	// MaxSocketPath bytes.
	Address string `toml:"address" comment:"Unix socket to serve: the address of the proxy plugin in containerd's config."`
	// ContainerdAddress is the absolute path of containerd's own socket, at
	// most MaxSocketPath bytes.
	ContainerdAddress string `toml:"containerd_address" comment:"containerd's socket, for reading blobs from its content store.\nIt is not contacted before a blob is needed."`
	// ContentRoot is the absolute path of the directory of containerd's content
	// store; empty means that containerd is asked.
	ContentRoot string `toml:"content_root" comment:"Directory of containerd's content store. Empty: containerd is asked for it.\nBlobs that are not found there are read over containerd's socket."`
	// Group is the name or the number of the group whose members may use the
	// socket besides root and the daemon's own user; empty means none.
	Group string `toml:"group" comment:"Group (name or number) that may use the socket. Empty: root and the daemon's own user only."`
	// LogLevel is one of trace, debug, info, warn, error, fatal and panic.
	LogLevel string `toml:"log_level" comment:"Least severe level to log: trace, debug, info, warn, error, fatal or panic."`
	// LogFormat is LogFormatText or LogFormatJSON.
	LogFormat string `toml:"log_format" comment:"Format of the log: text or json."`
	// Snapshotter holds the options of the snapshotter.
	Snapshotter Snapshotter `toml:"snapshotter" comment:"Options of the snapshotter."`
	// Limits holds what a layer may take.
	Limits Limits `toml:"limits" comment:"What one layer may take. One that asks for more is refused."`
	// Metrics says where metrics are served.
	Metrics Metrics `toml:"metrics" comment:"Metrics for Prometheus, at /v1/metrics."`
	// Scrub says how layers are checked in the background.
	Scrub Scrub `toml:"scrub" comment:"Checking layers in the background."`
}

// Snapshotter is the table [snapshotter]: how snapshots are kept and mounted.
type Snapshotter struct {
	// SyncRemove makes Remove wait until a removed snapshot's files are gone.
	SyncRemove bool `toml:"sync_remove" comment:"Delete the files of a snapshot before its removal is answered.\nOtherwise they are deleted in the background."`
	// UpperdirLabel adds the upper directory's path to a snapshot's labels.
	UpperdirLabel bool `toml:"upperdir_label" comment:"Show the upper directory of a snapshot as a label."`
	// SlowChown allows a recursive chown where idmapped mounts can't be used.
	SlowChown bool `toml:"slow_chown" comment:"Allow a recursive chown for containers with a user namespace where\nidmapped mounts can't be used. Slow, and it takes space."`
	// IDMappedMounts is IDMappedMountsAuto or IDMappedMountsOff.
	IDMappedMounts string `toml:"idmapped_mounts" comment:"Idmapped mounts: auto (where the kernel can) or off."`
	// MountOptions are added to every overlay mount, one option an element.
	MountOptions []string `toml:"mount_options" comment:"Further options of every overlay mount, one an element, such as \"volatile\"."`
	// MountProgram is MountProgramAuto, MountProgramKernel or MountProgramFuse.
	MountProgram string `toml:"mount_program" comment:"Who mounts: kernel, fuse-overlayfs, or auto: the kernel, and fuse-overlayfs in a user\nnamespace where the kernel can't."`
	// Durability is DurabilityCommit or DurabilityNone.
	Durability string `toml:"durability" comment:"What survives a power loss: commit (every answered call) or none (faster)."`
	// Sharing is SharingAll, SharingNamespace or SharingOff.
	Sharing string `toml:"sharing" comment:"Whom a layer serves that is here already: all images of all containerd namespaces (all),\nthose of a namespace that has pulled it (namespace), or one chain (off)."`
	// UnpackAhead is how many layers of an image are unpacked at once before containerd
	// asks for them, beside the one that it asked for; 0 means none.
	UnpackAhead int `toml:"unpack_ahead" comment:"How many of an image's next layers are unpacked at once while containerd waits for one: 0 is none."`
	// AdditionalStores are absolute paths of read-only layer stores, in order.
	AdditionalStores []string `toml:"additional_stores" comment:"Read-only directories of layers to look in before a layer is fetched, in order.\nThey need not exist."`
	// Verify is VerifyFull, VerifyMetadata or VerifyNone.
	Verify string `toml:"verify" comment:"What is checked of an additional store's layer before its first use: full, metadata or none."`
	// Ownership is OwnershipReal or OwnershipOverrideStat.
	Ownership string `toml:"ownership" comment:"Where owners and modes of files are kept: real, or override-stat: in an attribute, without\nprivilege, for fuse-overlayfs and microVMs. A root is of one kind for ever."`
}

// Default returns the configuration of a daemon without a file.
func Default() Config {
	return Config{
		Version:           Version,
		Root:              advice.DefaultRoot,
		Address:           "/run/containerd-strata-grpc/containerd-strata-grpc.sock",
		ContainerdAddress: "/run/containerd/containerd.sock",
		LogLevel:          "info",
		LogFormat:         LogFormatText,
		Snapshotter: Snapshotter{
			IDMappedMounts:   IDMappedMountsAuto,
			MountOptions:     []string{},
			MountProgram:     MountProgramAuto,
			Durability:       DurabilityCommit,
			Sharing:          SharingAll,
			UnpackAhead:      1,
			AdditionalStores: []string{},
			Verify:           VerifyFull,
			Ownership:        OwnershipReal,
		},
		Limits: DefaultLimits(),
		Scrub:  DefaultScrub(),
	}
}
