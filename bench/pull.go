// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/transfer/image"
	ociregistry "github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// puller is a way to pull an image and unpack it, in the context's namespace.
type puller func(ctx context.Context, s *side, p *pullable) error

// byTransfer is how ctr and the CRI plugin do it: in the daemon, which keeps two pulls
// from unpacking one chain at the same time.
func byTransfer(ctx context.Context, s *side, p *pullable) error {
	source, err := ociregistry.NewOCIRegistry(ctx, p.ref)
	if err != nil {
		return err
	}
	platform := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	store := image.NewStore(p.ref, image.WithUnpack(platform, s.snapshotter), image.WithPlatforms(platform))
	return s.client.Transfer(ctx, source, store)
}

// byClient is how clients do it that unpack themselves: nothing but the snapshotter
// and the differ keeps them apart.
func byClient(ctx context.Context, s *side, p *pullable) error {
	_, err := s.client.Pull(ctx, p.ref, containerd.WithPullUnpack, containerd.WithPullSnapshotter(s.snapshotter))
	return err
}

// checkUnpacked: a containerd that has no configuration for a snapshotter just fetches.
func (s *side) checkUnpacked(ctx context.Context, p *pullable) error {
	img, err := s.client.GetImage(ctx, p.ref)
	if err != nil {
		return err
	}
	ok, err := img.IsUnpacked(ctx, s.snapshotter)
	if err == nil && !ok {
		err = errors.New("pulled, but not unpacked")
	}
	return err
}

// pull pulls in the namespace of this program.
func (s *side) pull(ctx context.Context, p *pullable) error {
	ctx = inNamespace(ctx)
	if err := errors.Join(byTransfer(ctx, s, p), s.checkUnpacked(ctx, p)); err != nil {
		return fmt.Errorf("%s: pulling %s: %w", s.name, p.ref, err)
	}
	return nil
}

// deleteImage waits for containerd's garbage collection, and for the removal of files.
func (s *side) deleteImage(ctx context.Context, p *pullable) error {
	if err := s.client.ImageService().Delete(inNamespace(ctx), p.ref, images.SynchronousDelete()); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	return errors.Join(s.fs.waitEmpty(ctx), s.fs.flush())
}

// settle makes what is there now the state that waitEmpty waits for.
func (s *side) settle() (err error) {
	if err := s.fs.flush(); err != nil {
		return err
	}
	s.fs.empty, err = s.fs.inodes()
	return err
}

// discardLayers makes an image's manifest forget its layers, as nodes have it that
// discard unpacked layers: the blobs go, the snapshots stay.
func (s *side) discardLayers(ctx context.Context, p *pullable) error {
	ctx = inNamespace(ctx)
	store := s.client.ContentStore()
	img, err := s.client.GetImage(ctx, p.ref)
	if err != nil {
		return err
	}
	info, err := store.Info(ctx, img.Target().Digest)
	if err != nil {
		return err
	}
	var fields []string
	for label := range maps.Keys(info.Labels) {
		if strings.HasPrefix(label, "containerd.io/gc.ref.content.l.") {
			fields = append(fields, "labels."+label)
		}
	}
	if _, err := store.Update(ctx, content.Info{Digest: info.Digest}, slices.Sorted(slices.Values(fields))...); err != nil {
		return err
	}
	if err := s.collect(ctx); err != nil {
		return err
	}
	for _, l := range p.layers {
		if _, err := store.Info(ctx, l.desc.Digest); !errdefs.IsNotFound(err) {
			return fmt.Errorf("%s: the blob of layer %s was not discarded (%w)", s.name, l.name, err)
		}
	}
	return s.checkUnpacked(ctx, p)
}

// collect runs containerd's garbage collection.
func (s *side) collect(ctx context.Context) error {
	service := s.client.LeasesService()
	lease, err := service.Create(ctx, leases.WithRandomID())
	if err != nil {
		return err
	}
	return service.Delete(ctx, lease, leases.SynchronousDelete)
}

// restart starts the daemons anew, with so many layers unpacked at once.
func (s *side) restart(ctx context.Context, unpacks int, durability string) error {
	s.unpacks = unpacks
	return errors.Join(s.stop(), s.writeConfigs(durability), s.start(ctx), s.fs.flush())
}

// snapshotRoot is the directory of the snapshotter.
func (s *side) snapshotRoot() string {
	if s.strata != "" {
		return s.file("strata")
	}
	return filepath.Join(s.fs.dir, "containerd", "io.containerd.snapshotter.v1.overlayfs")
}

// comparePulled compares what both sides have of an image.
func comparePulled(ctx context.Context, dir string, sides [2]*side, p *pullable) (unknown []string, err error) {
	ctx = inNamespace(ctx)
	var pair [2]*unpacked
	defer func() {
		for _, u := range pair {
			if u != nil {
				err = errors.Join(err, u.side.client.LeasesService().Delete(context.WithoutCancel(ctx), u.lease))
			}
		}
	}()
	for i, s := range sides {
		lease, err := s.client.LeasesService().Create(ctx, leases.WithRandomID())
		if err != nil {
			return nil, err
		}
		pair[i] = &unpacked{side: s, top: p.top, lease: lease}
	}
	implicit := map[string]bool{"/": true}
	for _, l := range p.layers {
		if err := l.addImplicit(implicit); err != nil {
			return nil, err
		}
	}
	unknown, _, err = compareTrees(ctx, dir, pair, implicit)
	return unknown, err
}
