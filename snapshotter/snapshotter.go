// SPDX-License-Identifier: Apache-2.0

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/moby/sys/userns"
	"github.com/strata-snapshotter/strata/extstore"
	"github.com/strata-snapshotter/strata/internal/advice"
	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// Snapshotter serves the snapshots of one root. All methods may be called
// concurrently. Errors carry an errdefs class: those of the snapshots.Snapshotter
// contract, ErrResourceExhausted for a full disk, ErrUnavailable where the root
// or a part of it is gone or the snapshotter was closed.
type Snapshotter struct {
	cfg       Config
	store     *layerstore.Store
	meta      *metadata.Store
	placed    *metadata.Barrier // layers that were moved to their place
	options   []string          // of overlay mounts
	mountType string            // of overlay mounts, see overlayutil.Plan
	idmap     bool              // idmapped mounts are used
	xattrs    overlayutil.XattrNamespace
	keys      keyLocks // of keys whose directories are moved
	uppers    keyLocks // of keys that layers are extracted into
	answers   keyLocks // that patches are published with
	patches   knownPatches
	flights   flights
	ahead     *ahead
	stores    *extstore.Set
	unpacker  Unpacker
	counts    counts
	close     func() error
}

var (
	_ snapshots.Snapshotter = (*Snapshotter)(nil)
	_ snapshots.Cleaner     = (*Snapshotter)(nil)
)

// New opens the root that cfg names, brings it to order after a crash and
// begins to delete what was removed before.
//
// ErrInvalidArgument: a setting makes no sense. ErrFailedPrecondition: the
// root's file system can't hold overlay layers, or a newer Strata wrote the
// root. ErrUnavailable: another process uses the root; it is named. ErrDataLoss:
// metadata.db is damaged or lost; the message has the command that makes it anew.
func New(ctx context.Context, cfg Config) (_ *Snapshotter, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fmt.Errorf("create the root directory: %w", err)
	}
	alias, err := cleanAlias(cfg.Root, cfg.AliasDir)
	if err != nil {
		return nil, err
	}
	volatile := cfg.Durability == DurabilityNone
	store, err := layerstore.Open(layerstore.Config{
		Root: cfg.Root, Alias: alias, Volatile: volatile, Check: metadata.CheckFormat,
		OverrideStat: cfg.Ownership == OwnershipOverrideStat,
	})
	if err != nil {
		return nil, adviseRebuild(cfg.Root, err)
	}
	s := &Snapshotter{cfg: cfg, store: store, placed: metadata.NewBarrier(store.SyncLayers)}
	s.ahead = newAhead(cfg.UnpackAhead, func(left []*aheadEntry) { s.dropAhead(context.Background(), left) })
	s.close = sync.OnceValue(s.shutdown)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := errors.Join(s.probe(ctx), s.openStores(ctx)); err != nil {
		return nil, err
	}
	err = s.openMetadata(ctx)
	if err == nil {
		err = s.recover(ctx)
	}
	if err != nil {
		return nil, adviseRebuild(cfg.Root, err)
	}
	return s, nil
}

// adviseRebuild adds the command that helps where metadata.db is damaged.
func adviseRebuild(root string, err error) error {
	if errdefs.IsDataLoss(err) {
		return fmt.Errorf("%w; as long as the root is there, this makes a new one: %s", err, advice.Rebuild(root))
	}
	return err
}

func (s *Snapshotter) openMetadata(ctx context.Context) error {
	var opts []metadata.Option
	if s.store.WritesInOrder() {
		opts = append(opts, metadata.WritesInOrder())
	}
	if s.cfg.Durability == DurabilityNone {
		opts = append(opts, metadata.Volatile())
	}
	used, err := s.store.Used()
	if err != nil {
		return err
	}
	if used {
		opts = append(opts, metadata.MustExist())
	}
	if s.meta, err = metadata.Open(s.store.DatabasePath(), opts...); err != nil {
		return err
	}
	if s.meta.Recovered() {
		log.G(ctx).WithField("root", s.cfg.Root).Info("metadata.db was made of metadata.log: it was not closed")
	}
	if err := s.meta.LogError(); err != nil {
		log.G(ctx).WithError(err).WithField("file", metadata.LogPath(s.store.DatabasePath())).Warn("metadata.db could not be rebuilt if it were lost now")
	}
	return nil
}

// probe finds out what the kernel and the root's file system can do. It works
// in staging: what a crash leaves there is swept.
func (s *Snapshotter) probe(ctx context.Context) error {
	if s.overrides() {
		s.probeAttributes(ctx)
		return nil
	}
	facts, err := s.facts(ctx)
	if err != nil {
		return fmt.Errorf("root %s: %w", s.cfg.Root, err)
	}
	s.mountType = facts.Type
	s.options = facts.MountOptions(s.cfg.MountOptions)
	s.xattrs = facts.XattrNamespace()
	s.idmap = s.cfg.IDMapping == IDMappingAuto && facts.IDMap.Answer == overlayutil.Yes
	log.G(ctx).WithField("root", s.cfg.Root).WithField("options", s.options).WithField("idmapped-mounts", s.idmap).Debug("checked the root")
	return nil
}

// facts are about the program that is to mount.
func (s *Snapshotter) facts(ctx context.Context) (overlayutil.Facts, error) {
	if s.cfg.facts != nil {
		return *s.cfg.facts, nil
	}
	dir := s.store.StagingPath()
	if s.cfg.MountProgram == MountProgramFuse {
		return overlayutil.CheckRootFuse(dir)
	}
	facts, err := overlayutil.CheckRoot(dir)
	if err == nil || s.cfg.MountProgram == MountProgramKernel || !userns.RunningInUserNS() {
		return facts, err
	}
	fuse, fuseErr := overlayutil.CheckRootFuse(dir)
	if fuseErr != nil {
		return facts, fmt.Errorf("%w; and fuse-overlayfs can't do it either: %w", err, fuseErr)
	}
	log.G(ctx).WithError(err).WithField("root", s.cfg.Root).Info("fuse-overlayfs mounts, as the kernel can't")
	return fuse, nil
}

// Capabilities returns what containerd is to know of this snapshotter, in the
// words of its plugin metadata (proxy_plugins.NAME.capabilities):
// "remap-ids" if it maps ids by itself, "only-remap-ids" if nobody else is to do
// it by changing the owner of every file, and "rebase" if a parent can be given
// at Commit.
//
// In a user namespace "rebase" is left out: containerd's own differ, which
// applies layers there through a mount, loses the whiteouts of a layer that has
// no parent yet.
func (s *Snapshotter) Capabilities() []string {
	var caps []string
	if s.idmap {
		caps = append(caps, "remap-ids")
	}
	if !s.cfg.SlowChown {
		caps = append(caps, "only-remap-ids")
	}
	if !userns.RunningInUserNS() {
		caps = append(caps, snapshots.RebaseCap)
	}
	return caps
}

// Close waits for calls that write, stops deleting, which goes on with the next
// start, and unlocks the root. Closing twice is no error; other calls fail with
// ErrUnavailable afterwards.
func (s *Snapshotter) Close() error { return s.close() }

func (s *Snapshotter) shutdown() error {
	var err error
	s.dropAhead(context.Background(), s.ahead.close())
	if s.meta != nil {
		err = s.meta.Close()
	}
	return errors.Join(err, s.store.Close())
}
