// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LabelPlatform is the label of an image record that holds the platform it was pulled
// for, as platforms.Format writes it.
const LabelPlatform = "strata/platform"

// Image is an image record with the manifest of one platform.
type Image struct {
	// Name is the complete reference, see Store.Reference.
	Name string
	// Target is what the name stands for: an index or a manifest.
	Target ocispec.Descriptor
	// Manifest is the platform's manifest, Target itself if that is one.
	Manifest ocispec.Descriptor
	// Config is the image's configuration; ConfigOf reads it.
	Config ocispec.Descriptor
	// Layers are the blobs, bottom first, and DiffIDs what is in them.
	Layers  []ocispec.Descriptor
	DiffIDs []digest.Digest
	// ChainID names the snapshot that the image is unpacked to. An image without layers
	// has none, and is empty here as well as in a snapshot's parent.
	ChainID  digest.Digest
	Platform ocispec.Platform
	Labels   map[string]string
	// Created and Updated are times of the record, not of the image.
	Created, Updated time.Time
}

// Get finds an image. platform is one as "linux/arm64/v8"; empty means the one that the
// image was pulled for.
//
// ErrReference: ref is none. ErrNotFound: there is no such image, or not for that
// platform. ErrDataLoss: a blob that says what the image is can't be read as such.
func (s *Store) Get(ctx context.Context, ref, platform string) (Image, error) {
	ctx = s.Context(ctx)
	name, err := s.Reference(ref)
	if err != nil {
		return Image{}, err
	}
	record, err := s.images.Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return Image{}, fmt.Errorf("image %s is not here, pull or load it: %w", name, errdefs.ErrNotFound)
	}
	if err != nil {
		return Image{}, fmt.Errorf("image %s: %w", name, err)
	}
	return s.resolve(ctx, record, platform)
}

// List returns all images by name, each for the platform that it was pulled for. One
// that can't be read comes with its name, target and times only, and its error is in
// the second list, under the same index; nil there means that the image is whole.
func (s *Store) List(ctx context.Context) (list []Image, problems []error, err error) {
	ctx = s.Context(ctx)
	records, err := s.images.List(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("list images: %w", err)
	}
	for _, record := range records {
		image, err := s.resolve(ctx, record, "")
		if err != nil {
			image = imageOf(record)
		}
		list, problems = append(list, image), append(problems, err)
	}
	return list, problems, ctx.Err()
}

func imageOf(record images.Image) Image {
	return Image{
		Name: record.Name, Target: record.Target, Labels: record.Labels,
		Created: record.CreatedAt, Updated: record.UpdatedAt,
	}
}

// resolve finds the platform's manifest of a record, and reads what Image says of it.
func (s *Store) resolve(ctx context.Context, record images.Image, platform string) (Image, error) {
	if platform == "" {
		platform = record.Labels[LabelPlatform]
	}
	matcher, err := matcherOf(platform)
	if err != nil {
		return Image{}, err
	}
	image := imageOf(record)
	if image.Manifest, err = s.selectManifest(ctx, record.Target, matcher); err != nil {
		return Image{}, fmt.Errorf("image %s: %w", record.Name, err)
	}
	if err := s.fill(ctx, &image); err != nil {
		return Image{}, fmt.Errorf("image %s: %w", record.Name, err)
	}
	return image, nil
}

// fill reads manifest and configuration.
func (s *Store) fill(ctx context.Context, image *Image) error {
	var manifest ocispec.Manifest
	if err := s.readJSON(ctx, image.Manifest, &manifest); err != nil {
		return err
	}
	var config ocispec.Image
	if err := s.readJSON(ctx, manifest.Config, &config); err != nil {
		return err
	}
	image.Config, image.Layers, image.DiffIDs = manifest.Config, manifest.Layers, config.RootFS.DiffIDs
	image.Platform = platforms.Normalize(config.Platform)
	if len(image.Layers) != len(image.DiffIDs) {
		return fmt.Errorf("manifest %s has %d layers, its config %d: %w", image.Manifest.Digest, len(image.Layers), len(image.DiffIDs), errdefs.ErrDataLoss)
	}
	for _, id := range image.DiffIDs {
		if err := id.Validate(); err != nil {
			return fmt.Errorf("config %s: diffID %q: %w (%w)", image.Config.Digest, id, err, errdefs.ErrDataLoss)
		}
	}
	image.ChainID = chainOf(image.DiffIDs)
	return nil
}
