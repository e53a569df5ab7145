// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/extstore"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// Durability says what a Commit that was answered survives.
type Durability string

const (
	// DurabilityCommit means that a committed layer is complete after a power cut.
	DurabilityCommit Durability = "commit"
	// DurabilityNone means that a committed layer survives the end of the process, and may
	// be incomplete after a power cut. For roots that don't outlive a boot.
	DurabilityNone Durability = "none"
)

// IDMapping says how the ids of a user namespace are brought into a snapshot
// with the labels containerd.io/snapshot/uidmapping and gidmapping.
type IDMapping string

const (
	// IDMappingAuto takes idmapped mounts, where the kernel and the root's file
	// system can do them.
	IDMappingAuto IDMapping = "auto"
	// IDMappingOff never takes idmapped mounts.
	IDMappingOff IDMapping = "off"
)

// MountProgram says who mounts snapshots.
type MountProgram string

const (
	// MountProgramAuto is the kernel, and fuse-overlayfs in a user namespace in which the
	// kernel can't mount an overlay on the root's file system.
	MountProgramAuto MountProgram = "auto"
	// MountProgramKernel is the kernel's overlay.
	MountProgramKernel MountProgram = "kernel"
	// MountProgramFuse is fuse-overlayfs(1). Idmapped mounts are then not used.
	MountProgramFuse MountProgram = "fuse-overlayfs"
)

// Sharing says whom a layer serves that is here already.
type Sharing string

const (
	// SharingAll means every image of every containerd namespace.
	SharingAll Sharing = "all"
	// SharingNamespace means that a namespace has to have pulled a layer once before it
	// is spared to do it again. What it pulls is still kept once for all of them.
	SharingNamespace Sharing = "namespace"
	// SharingOff means only the chain that it was extracted for.
	SharingOff Sharing = "off"
)

// Config is all that a snapshotter depends on. Only Root is needed.
type Config struct {
	// Root is the absolute path of the directory everything is kept in. It is
	// created if it is not there; its mode becomes 0700.
	Root string
	// SyncRemove makes Remove wait until the directories are deleted.
	SyncRemove bool
	// UpperdirLabel adds containerd.io/snapshot/overlay.upperdir, the directory
	// that holds a snapshot's changes, to the labels of snapshots.
	UpperdirLabel bool
	// SlowChown changes the owner of every file of a snapshot that asks for an id
	// mapping, where idmapped mounts can't be used. Without it such a snapshot is
	// refused there.
	SlowChown bool
	// IDMapping is IDMappingAuto if it is empty.
	IDMapping IDMapping
	// MountOptions are further options of overlay mounts, one an element. They
	// are not used on bind mounts.
	MountOptions []string
	// MountProgram is MountProgramAuto if it is empty.
	MountProgram MountProgram
	// Durability is DurabilityCommit if it is empty.
	Durability Durability
	// Ownership is OwnershipReal if it is empty. A root is of one kind for ever:
	// opening it as the other is ErrFailedPrecondition.
	Ownership Ownership
	// Sharing is SharingAll if it is empty.
	Sharing Sharing
	// Staging says, when it is asked, whether containerd knows staged snapshots: that
	// read-only mounts of an extraction mean that there is nothing to extract
	// (2.4 and later). Nil means no.
	Staging func(context.Context) bool
	// UnpackAhead is how many layers are extracted at once before they are asked for
	// (Ahead), while one is that was. 0 is none.
	UnpackAhead int
	// AdditionalStores are absolute paths of read-only stores (package extstore) that
	// layers are looked for in, in order. They need not exist.
	AdditionalStores []string
	// Verify is what is checked of their layers before the first use. Empty means
	// extstore.VerifyFull.
	Verify extstore.Verify
	// Limits bound layers that are extracted here. The zero value means
	// archive.DefaultLimits.
	Limits archive.Limits
	// AliasDir is where a link to Root is made if the path of Root contains ':',
	// ',' or '\', which have a meaning in mount options. Empty: a directory of
	// this user's own under /run, $XDG_RUNTIME_DIR or the temporary directory.
	AliasDir string

	// facts are of the root where that is on a file system that no overlay can have its
	// upper directory on. Only tests have such roots.
	facts *overlayutil.Facts
}

func (c *Config) validate() error {
	if !filepath.IsAbs(c.Root) || filepath.Clean(c.Root) == "/" {
		return fmt.Errorf("root %q must be an absolute path of its own: %w", c.Root, errdefs.ErrInvalidArgument)
	}
	c.Root = filepath.Clean(c.Root)
	if err := c.validateOwnership(); err != nil {
		return err
	}
	if c.UnpackAhead < 0 {
		return fmt.Errorf("unpack ahead %d: must be 0 or more: %w", c.UnpackAhead, errdefs.ErrInvalidArgument)
	}
	switch c.Durability {
	case "":
		c.Durability = DurabilityCommit
	case DurabilityCommit, DurabilityNone:
	default:
		return fmt.Errorf("durability %q: must be %q or %q: %w", c.Durability, DurabilityCommit, DurabilityNone, errdefs.ErrInvalidArgument)
	}
	switch c.Sharing {
	case "":
		c.Sharing = SharingAll
	case SharingAll, SharingNamespace, SharingOff:
	default:
		return fmt.Errorf("sharing %q: must be %q, %q or %q: %w", c.Sharing, SharingAll, SharingNamespace, SharingOff, errdefs.ErrInvalidArgument)
	}
	switch c.MountProgram {
	case "":
		c.MountProgram = MountProgramAuto
	case MountProgramAuto, MountProgramKernel, MountProgramFuse:
	default:
		return fmt.Errorf("mount program %q: must be %q, %q or %q: %w", c.MountProgram, MountProgramAuto, MountProgramKernel, MountProgramFuse, errdefs.ErrInvalidArgument)
	}
	switch c.IDMapping {
	case "":
		c.IDMapping = IDMappingAuto
	case IDMappingAuto, IDMappingOff:
	default:
		return fmt.Errorf("id mapping %q: must be %q or %q: %w", c.IDMapping, IDMappingAuto, IDMappingOff, errdefs.ErrInvalidArgument)
	}
	return nil
}
