// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"

	"github.com/strata-snapshotter/strata/archive"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// Ownership says where owners, modes and types of files are kept.
type Ownership string

const (
	// OwnershipReal means in the files themselves, which takes privilege or a user
	// namespace.
	OwnershipReal Ownership = "real"
	// OwnershipOverrideStat means in the attribute user.containers.override_stat. All files
	// belong to the user who runs this, nothing is mounted, and no privilege is used.
	// Mounts are for fuse-overlayfs, with the option xattr_permissions=2.
	OwnershipOverrideStat Ownership = "override-stat"
)

// readsOverrides makes fuse-overlayfs show what the attribute says, and allows it to
// write one.
const readsOverrides = "xattr_permissions=2"

func (c *Config) validateOwnership() error {
	switch c.Ownership {
	case "":
		c.Ownership = OwnershipReal
	case OwnershipReal:
	case OwnershipOverrideStat:
		if len(c.AdditionalStores) > 0 {
			return fmt.Errorf("ownership %q: layers of additional stores have real owners, and have to be mounted: %w", c.Ownership, errdefs.ErrInvalidArgument)
		}
	default:
		return fmt.Errorf("ownership %q: must be %q or %q: %w", c.Ownership, OwnershipReal, OwnershipOverrideStat, errdefs.ErrInvalidArgument)
	}
	return nil
}

// overrides says whether this store is an ordinary user's.
func (s *Snapshotter) overrides() bool { return s.cfg.Ownership == OwnershipOverrideStat }

// probeAttributes is probe where nothing is mounted here. What a file system without
// attributes loses is no reason to refuse it: content and names are all there.
func (s *Snapshotter) probeAttributes(ctx context.Context) {
	s.xattrs = overlayutil.User
	s.options = append([]string{readsOverrides}, s.cfg.MountOptions...)
	found := overlayutil.ProbeXattr(s.store.StagingPath(), s.xattrs)
	if found.Answer == overlayutil.No {
		log.G(ctx).WithError(found.Reason).WithField("root", s.cfg.Root).
			Warn("the file system of the root has no user attributes: owners, modes and types of files in layers are not kept")
	}
}

// consumers makes mounts of a plan, which is the kernel's, ones for fuse-overlayfs. It
// takes a view of nothing for what it is, too.
func (s *Snapshotter) consumers(mounts []mount.Mount) []mount.Mount {
	if !s.overrides() {
		return mounts
	}
	for i, m := range mounts {
		if m.Type == "bind" {
			mounts[i].Source, mounts[i].Options = "overlay", append([]string{"lowerdir=" + overlayutil.EscapeLower(m.Source)}, s.options...)
		}
		mounts[i].Type = overlayutil.FuseOverlayfs
	}
	return mounts
}

// upperAttrs are what the root of a new snapshot's upper directory looks like, if the
// layers below show attrs.
func (s *Snapshotter) upperAttrs(info snapshots.Info, attrs layerstore.RootAttrs) layerstore.RootAttrs {
	if !s.overrides() || isExtraction(info) {
		return attrs
	}
	return attrs.ForContainer()
}

// withLowers runs do with the directories of a chain, for what reads them instead of a
// mount.
func (s *Snapshotter) withLowers(chain []metadata.Layer, do func(archive.Options) error) (err error) {
	options := s.archiveOptions()
	defer func() {
		for _, dir := range options.Lowers {
			err = errors.Join(err, dir.Close())
		}
	}()
	for _, path := range s.lowers(chain) {
		dir, err := os.Open(path)
		if err != nil {
			return err
		}
		options.Lowers = append(options.Lowers, dir)
	}
	return do(options)
}

// answerUnmounted is the part of fillPatch that mounts the layers below, without doing so.
func (s *Snapshotter) answerUnmounted(ctx context.Context, q question, below archive.Below, chain []metadata.Layer) (reason string, answer digest.Digest, err error) {
	err = s.withLowers(chain, func(options archive.Options) (err error) {
		reason, answer, err = archive.Answer(ctx, q.needs, below, options)
		return err
	})
	return reason, answer, err
}

// extractUnmounted is the part of extractMounted that does: the upper directory gets
// what a mount would have put there.
func (s *Snapshotter) extractUnmounted(ctx context.Context, active metadata.Snapshot, chain []metadata.Layer, sealed *seal) (result archive.Result, err error) {
	dir, err := s.store.OpenUpper(active.Number)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	err = s.withLowers(chain, func(options archive.Options) (err error) {
		result, err = s.unpacker.ApplyOnto(ctx, sealed.Blob, dir, options)
		return err
	})
	return result, err
}

// adoptUpper makes a layer that can be read below others of what fuse-overlayfs wrote.
func (s *Snapshotter) adoptUpper(ctx context.Context, active metadata.Snapshot) error {
	if !s.overrides() {
		return nil
	}
	dir, err := s.store.OpenUpper(active.Number)
	if err != nil {
		return err
	}
	return errors.Join(archive.Adopt(ctx, dir, s.archiveOptions()), dir.Close())
}

// OwnershipOf says of which kind an existing root is, without opening it. A directory
// that is no root yet is of the kind OwnershipReal.
//
// ErrNotFound: there is no such directory. ErrFailedPrecondition: what says it can't be
// read.
func OwnershipOf(root string) (Ownership, error) {
	noted, err := layerstore.OwnershipOf(root)
	if err != nil || noted != "" {
		return Ownership(noted), err
	}
	return OwnershipReal, nil
}
