// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrPlatform is in every error about a platform that can't be parsed. Its class is
// ErrInvalidArgument.
var ErrPlatform = fmt.Errorf("not a platform: %w", errdefs.ErrInvalidArgument)

const (
	// maxDocument bounds manifests and configurations. Registries take 4 MiB.
	maxDocument = 16 << 20
	// maxIndexes bounds indexes in indexes.
	maxIndexes = 8
)

// matcherOf is what to compare with the platform called by that name; empty is this
// machine's, and of an arm machine also those before it.
func matcherOf(platform string) (platforms.MatchComparer, error) {
	if platform == "" {
		return platforms.Default(), nil
	}
	p, err := platforms.Parse(platform)
	if err != nil {
		return nil, fmt.Errorf("platform %q: %w: %w", platform, err, ErrPlatform)
	}
	return platforms.Only(p), nil
}

// readJSON reads a blob that must be a JSON document.
//
// ErrNotFound: it is not here. ErrDataLoss: it is no such document.
func (s *Store) readJSON(ctx context.Context, desc ocispec.Descriptor, into any) error {
	if desc.Size > maxDocument {
		return fmt.Errorf("%s %s has %d bytes, %d is the limit: %w", desc.MediaType, desc.Digest, desc.Size, maxDocument, errdefs.ErrDataLoss)
	}
	data, err := content.ReadBlob(ctx, s.Content(), desc)
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("blob %s is no %s: %w (%w)", desc.Digest, desc.MediaType, err, errdefs.ErrDataLoss)
	}
	return nil
}

// selectManifest follows target through indexes to the manifest that matches best.
//
// ErrNotFound: none does; the message says for what platforms there are some.
func (s *Store) selectManifest(ctx context.Context, target ocispec.Descriptor, matcher platforms.MatchComparer) (ocispec.Descriptor, error) {
	for range maxIndexes {
		switch {
		case images.IsManifestType(target.MediaType):
			return target, nil
		case !images.IsIndexType(target.MediaType):
			return target, fmt.Errorf("%s is a %s and no image: %w", target.Digest, target.MediaType, errdefs.ErrInvalidArgument)
		}
		var index ocispec.Index
		if err := s.readJSON(ctx, target, &index); err != nil {
			return target, err
		}
		next, err := selectOf(index.Manifests, matcher)
		if err != nil {
			return target, fmt.Errorf("index %s: %w", target.Digest, err)
		}
		target = next
	}
	return target, fmt.Errorf("more than %d indexes in each other: %w", maxIndexes, errdefs.ErrDataLoss)
}

// selectOf is the entry of an index that matches best. An entry that names no platform
// matches all of them, after those that name one.
func selectOf(entries []ocispec.Descriptor, matcher platforms.MatchComparer) (ocispec.Descriptor, error) {
	var best *ocispec.Descriptor
	for i := range entries {
		e := &entries[i]
		switch {
		case !images.IsManifestType(e.MediaType) && !images.IsIndexType(e.MediaType):
		case e.Platform == nil && best == nil:
			best = e
		case e.Platform == nil || !matcher.Match(*e.Platform):
		case best == nil || best.Platform == nil || matcher.Less(*e.Platform, *best.Platform):
			best = e
		}
	}
	if best == nil {
		return ocispec.Descriptor{}, fmt.Errorf("no image for this platform, there is %s: %w", platformsOf(entries), errdefs.ErrNotFound)
	}
	return *best, nil
}

// platformsOf lists the platforms of an index for a message.
func platformsOf(entries []ocispec.Descriptor) string {
	var names []string
	for _, e := range entries {
		if e.Platform != nil && e.Platform.OS != "unknown" {
			names = append(names, platforms.Format(*e.Platform))
		}
	}
	if len(names) == 0 {
		return "none"
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
