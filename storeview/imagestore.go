// SPDX-License-Identifier: Apache-2.0

package storeview

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/content"
	cmetadata "github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/boltcopy"
)

// imagesNamespace is the one namespace of a store of images.
const imagesNamespace = "default"

// ImageStoreNames returns the images of a store of images, read from a copy of its
// images.db: somebody may be pulling. One that has none yet has no names.
//
// Errors are those of Open.
func ImageStoreNames(ctx context.Context, imageStore string) (names Names, err error) {
	db, err := boltcopy.Open(ctx, filepath.Join(imageStore, imagesName))
	if errdefs.IsNotFound(err) {
		return names, nil
	}
	if err != nil {
		return names, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	blobs := blobDir(filepath.Join(imageStore, contentName, "blobs"))
	// Without a content store and snapshotters it answers what is in the database.
	mdb := cmetadata.NewDB(db, nil, nil)
	list, err := cmetadata.NewImageStore(mdb).List(namespaces.WithNamespace(ctx, imagesNamespace))
	if err != nil {
		return names, fmt.Errorf("images of %s: %w", imageStore, err)
	}
	for _, image := range list {
		chains, err := ChainIDs(ctx, blobs, image.Target)
		if err != nil {
			return names, err
		}
		names.Images = append(names.Images, NamedImage{Namespace: imagesNamespace, Name: image.Name, Digest: image.Target.Digest, ChainIDs: chains})
	}
	return names, nil
}

// blobDir reads blobs of containerd's content store where they lie.
type blobDir string

// ReaderAt implements content.Provider.
func (dir blobDir) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w (%w)", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	path := filepath.Join(string(dir), desc.Digest.Algorithm().String(), desc.Digest.Encoded())
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", desc.Digest, errdefs.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return blob{f, st.Size()}, nil
}

type blob struct {
	*os.File
	size int64
}

func (b blob) Size() int64 { return b.size }
