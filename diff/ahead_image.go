// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/internal/document"
)

const (
	// Labels that containerd puts on a manifest, to keep what it refers to: one for its
	// config, one for each layer (images.ChildGCLabels). With discard_unpacked_layers
	// there are none for layers.
	configLabel  = "containerd.io/gc.ref.content.config"
	layersPrefix = "containerd.io/gc.ref.content.l."
	// manifestsToRead is how many manifests are read, at most, of those with a label of the
	// layer, and of those without labels of layers: those that were written last, one of
	// which is being pulled.
	manifestsToRead = 4
)

// imageOf finds the image that is being unpacked if the blob of a layer is applied: of those
// with the layer the one that was pulled last, since a pull writes the labels of a manifest.
//
// ErrNotFound: there is none.
func imageOf(ctx context.Context, store content.Store, namespace string, layer digest.Digest) ([]AheadLayer, error) {
	manifests, err := manifestsWith(ctx, store, layer)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, info := range manifests {
		layers, err := layersOf(ctx, store, info)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if slices.ContainsFunc(layers, func(l AheadLayer) bool { return l.Blob.Digest == layer }) {
			for i := range layers {
				layers[i].Namespace = namespace
			}
			return layers, nil
		}
	}
	return nil, errors.Join(failed, fmt.Errorf("an image with layer %s: %w", layer, errdefs.ErrNotFound))
}

// manifestsWith are the manifests that may have a layer, the one that was changed last first.
func manifestsWith(ctx context.Context, store content.Manager, layer digest.Digest) ([]content.Info, error) {
	var named, silent []content.Info
	err := store.Walk(ctx, func(info content.Info) error {
		says := false
		for label, value := range info.Labels {
			if !strings.HasPrefix(label, layersPrefix) {
				continue
			}
			says = true
			if value == layer.String() {
				named = append(named, info)
				return nil
			}
		}
		if !says {
			silent = append(silent, info)
		}
		return nil
	}, `labels."`+configLabel+`"`)
	if err != nil {
		return nil, fmt.Errorf("list manifests: %w", err)
	}
	slices.SortFunc(named, newestFirst)
	slices.SortFunc(silent, newestFirst)
	return append(named[:min(len(named), manifestsToRead)], silent[:min(len(silent), manifestsToRead)]...), nil
}

func newestFirst(a, b content.Info) int { return changed(b).Compare(changed(a)) }

func changed(info content.Info) time.Time {
	if info.UpdatedAt.After(info.CreatedAt) {
		return info.UpdatedAt
	}
	return info.CreatedAt
}

// layersOf reads a manifest and its config.
func layersOf(ctx context.Context, store content.Provider, info content.Info) ([]AheadLayer, error) {
	var manifest ocispec.Manifest
	if err := document.Read(ctx, store, ocispec.Descriptor{Digest: info.Digest, Size: info.Size}, &manifest); err != nil {
		return nil, err
	}
	var config struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := document.Read(ctx, store, manifest.Config, &config); err != nil {
		return nil, err
	}
	blobs := slices.DeleteFunc(manifest.Layers, func(l ocispec.Descriptor) bool { return !images.IsLayerType(l.MediaType) })
	diffIDs := config.RootFS.DiffIDs
	if len(blobs) != len(diffIDs) {
		return nil, fmt.Errorf("manifest %s has %d layers, its config %d: %w", info.Digest, len(blobs), len(diffIDs), errdefs.ErrInvalidArgument)
	}
	chainIDs := identity.ChainIDs(slices.Clone(diffIDs))
	layers := make([]AheadLayer, len(blobs))
	for i, blob := range blobs {
		layers[i] = AheadLayer{Blob: blob, DiffID: diffIDs[i], ChainID: chainIDs[i]}
		if i > 0 {
			layers[i].Below = chainIDs[i-1]
		}
		if err := errors.Join(blob.Digest.Validate(), diffIDs[i].Validate()); err != nil {
			return nil, fmt.Errorf("manifest %s: layer %d: %w: %w", info.Digest, i, err, errdefs.ErrInvalidArgument)
		}
	}
	return layers, nil
}
