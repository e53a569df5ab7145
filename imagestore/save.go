// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
)

// Save writes images as a tar that is an OCI layout, and has what docker load reads
// beside it. What an image's name stands for is kept: an index too, with the one
// manifest of it that is here.
//
// ErrNotFound: an image is not here, or a blob of it; see PullOptions.Blobs.
// ErrInvalidArgument: there is none, or they are for several platforms.
func (s *Store) Save(ctx context.Context, w io.Writer, refs ...string) error {
	ctx = s.Context(ctx)
	if len(refs) == 0 {
		return fmt.Errorf("no image to save: %w", errdefs.ErrInvalidArgument)
	}
	var records []images.Image
	platform := ""
	for i, ref := range refs {
		image, err := s.Get(ctx, ref, "")
		if err != nil {
			return err
		}
		if err := s.checkBlobs(ctx, image); err != nil {
			return fmt.Errorf("%w; its layer was here when the image was pulled, pull it again with its blobs", err)
		}
		if i == 0 {
			platform = image.Labels[LabelPlatform]
		}
		if found := image.Labels[LabelPlatform]; found != platform {
			return fmt.Errorf("image %s is for platform %q, others are for %q: save them apart: %w", image.Name, found, platform, errdefs.ErrInvalidArgument)
		}
		records = append(records, images.Image{Name: image.Name, Target: image.Target})
	}
	matcher, err := matcherOf(platform)
	if err != nil {
		return err
	}
	err = archive.Export(ctx, s.Content(), w, archive.WithPlatform(matcher), archive.WithSkipMissing(s.Content()), archive.WithImages(records))
	if err != nil {
		return fmt.Errorf("save: %w", err)
	}
	return nil
}
