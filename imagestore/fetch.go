// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fetch brings a blob into the content store, unless it is there. What a download that
// was cut off has left is gone on with. progress may be nil.
//
// ErrNotFound: the source has no such blob. ErrDataLoss: what it has is something else.
// ErrUnavailable: it can't be reached.
func (s *Store) fetch(ctx context.Context, from remotes.Fetcher, desc ocispec.Descriptor, progress func(done int64)) error {
	if err := desc.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w (%w)", desc.Digest, err, errdefs.ErrDataLoss)
	}
	if info, err := s.Content().Info(ctx, desc.Digest); err == nil {
		if info.Size != desc.Size {
			return fmt.Errorf("blob %s has %d bytes, its descriptor says %d: %w", desc.Digest, info.Size, desc.Size, errdefs.ErrDataLoss)
		}
		return nil
	}
	counted := remotes.FetcherFunc(func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		r, err := from.Fetch(ctx, desc)
		if err != nil || progress == nil {
			return r, err
		}
		return &counter{ReadCloser: r, tell: progress}, nil
	})
	var err error
	for range 2 {
		err = remotes.Fetch(ctx, s.Content(), counted, desc)
		if err == nil || errdefs.IsAlreadyExists(err) {
			return nil
		}
		if !errdefs.IsFailedPrecondition(err) {
			return fmt.Errorf("blob %s: %w", desc.Digest, classifyRemote(ctx, err))
		}
		// It is whole, and wrong. Once more from its beginning: what an earlier
		// download had left may have been damaged by a power cut.
		if aborted := s.Content().Abort(ctx, remotes.MakeRefKey(ctx, desc)); aborted != nil && !errdefs.IsNotFound(aborted) {
			return errors.Join(err, aborted)
		}
	}
	return fmt.Errorf("blob %s: the registry or archive has something else under this digest: %w (%w)", desc.Digest, err, errdefs.ErrDataLoss)
}

// counter tells how far the reading of a blob is.
type counter struct {
	io.ReadCloser
	at   int64
	tell func(done int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.at += int64(n)
		c.tell(c.at)
	}
	return n, err
}

// Seek lets a download go on: without it, what is here would be read again.
func (c *counter) Seek(offset int64, whence int) (int64, error) {
	seeker, ok := c.ReadCloser.(io.Seeker)
	if !ok {
		return 0, fmt.Errorf("a source that can't seek: %w", errdefs.ErrNotImplemented)
	}
	at, err := seeker.Seek(offset, whence)
	c.at = at
	return at, err
}

// nothing is the source of an archive that was read: what is not in the content store by
// then is nowhere.
var nothing = remotes.FetcherFunc(func(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, fmt.Errorf("%s %s is not in the archive: %w", desc.MediaType, desc.Digest, errdefs.ErrDataLoss)
})
