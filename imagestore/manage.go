// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
)

// Tag gives an image another name, which is taken from the image that has it. It returns
// the name.
//
// ErrReference: one of the two is none. ErrInvalidArgument: the new name has the digest
// of something else. ErrNotFound: there is no such image.
func (s *Store) Tag(ctx context.Context, ref, as string) (string, error) {
	ctx = s.Context(ctx)
	from, err := s.Reference(ref)
	if err != nil {
		return "", err
	}
	to, err := s.Reference(as)
	if err != nil {
		return "", err
	}
	record, err := s.images.Get(ctx, from)
	if err != nil {
		return "", fmt.Errorf("image %s is not here: %w", from, err)
	}
	if want := digestOf(to); want != "" && want != record.Target.Digest.String() {
		return "", fmt.Errorf("image %s is %s, it can't be called %s: %w", from, record.Target.Digest, to, errdefs.ErrInvalidArgument)
	}
	_, err = s.record(ctx, to, record.Target, record.Labels[LabelPlatform])
	return to, err
}

// Remove takes a name away, and returns it written out. What no name refers to any more
// goes with GC.
//
// ErrReference: it is none. ErrNotFound: no image has it.
func (s *Store) Remove(ctx context.Context, ref string) (string, error) {
	ctx = s.Context(ctx)
	name, err := s.Reference(ref)
	if err != nil {
		return "", err
	}
	if err := s.images.Delete(ctx, name, images.SynchronousDelete()); err != nil {
		return "", fmt.Errorf("image %s is not here: %w", name, err)
	}
	return name, nil
}
