// SPDX-License-Identifier: Apache-2.0

// Package document reads manifests and configs of images from a content store.
package document

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxSize bounds a document, in bytes. containerd's resolver stops at 4 MiB for manifests.
const maxSize = 8 << 20

// Read decodes the JSON document of desc into v. What is read is bounded by the size that the
// blob has: that in desc is whatever an image says, of any blob that is there.
//
// ErrNotFound: there is no such blob. ErrInvalidArgument: it is larger than 8 MiB, or not what
// v takes.
func Read(ctx context.Context, from content.Provider, desc ocispec.Descriptor, v any) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("read %s: %w", desc.Digest, err)
		}
	}()
	blob, err := from.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	if blob.Size() > maxSize {
		return fmt.Errorf("%d bytes are too many for a manifest or a config: %w", blob.Size(), errdefs.ErrInvalidArgument)
	}
	data, err := io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}
