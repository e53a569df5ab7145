// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	containerd "github.com/containerd/containerd/v2/client"
	corecontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	transferimage "github.com/containerd/containerd/v2/core/transfer/image"
	"github.com/containerd/containerd/v2/core/transfer/registry"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (c *client) pull(ctx context.Context, o op) (err error) {
	// Pulled under the name that the registry has, kept under the client's own.
	from := c.pool.host + "/" + o.image.pool.name + ":1"
	resolver := containerd.WithResolver(docker.NewResolver(docker.ResolverOptions{
		Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchLocalhost)),
	}))
	switch o.way {
	case byTransfer:
		err = c.transfer(ctx, from, o.image.ref)
	case byClient:
		err = c.keep(ctx, o.image.ref, func(ctx context.Context) (ocispec.Descriptor, error) {
			img, err := c.node.client.Pull(ctx, from, resolver, containerd.WithPullUnpack, containerd.WithPullSnapshotter(snapshotter))
			if err != nil {
				return ocispec.Descriptor{}, err
			}
			return img.Target(), nil
		})
	default:
		err = c.keep(ctx, o.image.ref, func(ctx context.Context) (ocispec.Descriptor, error) {
			img, err := c.node.client.Fetch(ctx, from, resolver)
			return img.Target, err
		})
	}
	if err != nil {
		return err
	}
	if err := c.unpack(ctx, o.image.ref); err != nil || !o.look {
		return err
	}
	return c.lookAtImage(ctx, o.image)
}

func (c *client) transfer(ctx context.Context, from, ref string) error {
	source, err := registry.NewOCIRegistry(ctx, from)
	if err != nil {
		return err
	}
	spec := platforms.DefaultSpec()
	unpack := transferimage.WithUnpack(ocispec.Platform{OS: spec.OS, Architecture: spec.Architecture}, snapshotter)
	return c.node.client.Transfer(ctx, source, transferimage.NewStore(ref, unpack, transferimage.WithPlatforms(spec)))
}

// keep gives what fetch brings a name before the lease that holds it goes.
func (c *client) keep(ctx context.Context, ref string, fetch func(context.Context) (ocispec.Descriptor, error)) (err error) {
	ctx, done, err := c.node.client.WithLease(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done(context.WithoutCancel(ctx))) }()
	target, err := fetch(ctx)
	if err != nil {
		return err
	}
	return c.name(ctx, ref, target)
}

func (c *client) name(ctx context.Context, ref string, target ocispec.Descriptor) error {
	img := images.Image{Name: ref, Target: target}
	_, err := c.node.client.ImageService().Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		_, err = c.node.client.ImageService().Update(ctx, img)
	}
	return err
}

// unpack makes sure of it: another client's removal may have taken a part away.
func (c *client) unpack(ctx context.Context, ref string) error {
	img, err := c.node.client.GetImage(ctx, ref)
	if err != nil {
		return err
	}
	return img.Unpack(ctx, snapshotter)
}

func (c *client) removeImage(ctx context.Context, o op) error {
	var opts []images.DeleteOpt
	if o.wait {
		opts = append(opts, images.SynchronousDelete())
	}
	err := c.node.client.ImageService().Delete(ctx, o.image.ref, opts...)
	if errdefs.IsNotFound(err) {
		return nil // an earlier try
	}
	return err
}

// commit makes an image of a container's changes, as nerdctl does.
func (c *client) commit(ctx context.Context, o op) error {
	err := c.keep(ctx, o.image.ref, func(ctx context.Context) (none ocispec.Descriptor, err error) {
		base, err := c.node.client.ContainerService().Get(ctx, o.container.id)
		if err != nil {
			return none, err
		}
		from, err := c.node.client.GetImage(ctx, base.Image)
		if err != nil {
			return none, err
		}
		layer, err := rootfs.CreateDiff(ctx, o.container.id, c.node.snapshots(), c.node.client.DiffService())
		if err != nil {
			return none, fmt.Errorf("diff: %w", err)
		}
		return c.extend(ctx, from.Target(), layer)
	})
	if err != nil {
		return err
	}
	if err := c.unpack(ctx, o.image.ref); err != nil || !o.look {
		return err
	}
	return c.lookAtImage(ctx, o.image)
}

// extend writes config and manifest of an image with one layer more.
func (c *client) extend(ctx context.Context, base, layer ocispec.Descriptor) (ocispec.Descriptor, error) {
	store := c.node.client.ContentStore()
	manifest, err := images.Manifest(ctx, store, base, platforms.Default())
	if err != nil {
		return base, err
	}
	diffID, err := images.GetDiffID(ctx, store, layer)
	if err != nil {
		return base, fmt.Errorf("diffID of the new layer: %w", err)
	}
	var config ocispec.Image
	blob, err := corecontent.ReadBlob(ctx, store, manifest.Config)
	if err != nil {
		return base, err
	}
	if err := json.Unmarshal(blob, &config); err != nil {
		return base, err
	}
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	manifest.Layers = append(manifest.Layers, layer)
	manifest.Versioned, manifest.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	if manifest.Config, err = writeJSON(ctx, store, ocispec.MediaTypeImageConfig, config, nil); err != nil {
		return base, err
	}
	refs := map[string]string{"containerd.io/gc.ref.content.config": manifest.Config.Digest.String()}
	for i, l := range manifest.Layers {
		refs[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = l.Digest.String()
	}
	return writeJSON(ctx, store, manifest.MediaType, manifest, refs)
}

func writeJSON(ctx context.Context, store corecontent.Store, mediaType string, value any, labels map[string]string) (ocispec.Descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, corecontent.WriteBlob(ctx, store, desc.Digest.String(), strings.NewReader(string(data)), desc, corecontent.WithLabels(labels))
}
