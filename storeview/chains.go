// SPDX-License-Identifier: Apache-2.0

package storeview

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/internal/document"
)

const (
	// maxDepth bounds how deep indexes may be in indexes.
	maxDepth = 4
	// maxManifests bounds how many manifests one image may lead to.
	maxManifests = 256
)

// ChainIDs returns the chainIDs of the topmost layers of all platforms of an image whose
// manifests and configs are there. What is not there, is unreadable, or has no layers, is
// left out: an image of which another platform is unpacked is none the worse.
//
// Errors are those of ctx.
func ChainIDs(ctx context.Context, from content.Provider, target ocispec.Descriptor) ([]digest.Digest, error) {
	w := &chainWalk{from: from}
	w.visit(ctx, target, maxDepth)
	return w.found, ctx.Err()
}

type chainWalk struct {
	from  content.Provider
	found []digest.Digest
	seen  int
}

func (w *chainWalk) visit(ctx context.Context, desc ocispec.Descriptor, depth int) {
	if w.seen++; depth == 0 || w.seen > maxManifests || ctx.Err() != nil {
		return
	}
	switch {
	case images.IsIndexType(desc.MediaType):
		var index ocispec.Index
		if document.Read(ctx, w.from, desc, &index) != nil {
			return
		}
		for _, m := range index.Manifests {
			w.visit(ctx, m, depth-1)
		}
	case images.IsManifestType(desc.MediaType):
		w.manifest(ctx, desc)
	}
}

func (w *chainWalk) manifest(ctx context.Context, desc ocispec.Descriptor) {
	var m ocispec.Manifest
	var config ocispec.Image
	if document.Read(ctx, w.from, desc, &m) != nil || document.Read(ctx, w.from, m.Config, &config) != nil || len(config.RootFS.DiffIDs) == 0 {
		return
	}
	for _, d := range config.RootFS.DiffIDs {
		if d.Validate() != nil {
			return
		}
	}
	w.found = append(w.found, identity.ChainID(config.RootFS.DiffIDs))
}
