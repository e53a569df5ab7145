// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// layout is the directory of an OCI image layout. Nothing outside of it is opened, where
// links in it may lead.
type layout struct{ root *os.Root }

// openLayout reads what images a layout has. Their blobs are copied as they are needed.
func openLayout(dir string) (_ *bundle, closeIt func() error, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fileError(err)
	}
	defer func() { err = errors.Join(err, onError(err, root.Close)) }()
	l := layout{root}
	var version ocispec.ImageLayout
	b := &bundle{from: l, describe: dir}
	if _, err := l.document(ocispec.ImageLayoutFile, &version); err != nil {
		return nil, nil, fmt.Errorf("load %s: not an OCI layout: %w", dir, err)
	}
	if version.Version != ocispec.ImageLayoutVersion {
		return nil, nil, fmt.Errorf("load %s: layout version %q is not %s: %w", dir, version.Version, ocispec.ImageLayoutVersion, errdefs.ErrDataLoss)
	}
	if b.raw, err = l.document(ocispec.ImageIndexFile, &b.index); err != nil {
		return nil, nil, fmt.Errorf("load %s: %w", dir, err)
	}
	return b, root.Close, nil
}

// document reads a JSON file of the layout. The error is ErrDataLoss.
func (l layout) document(name string, into any) (data []byte, err error) {
	f, err := l.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if data, err = io.ReadAll(io.LimitReader(f, maxDocument)); err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w (%w)", name, err, errdefs.ErrDataLoss)
	}
	return data, nil
}

// open opens a regular file. Without O_NONBLOCK a fifo would be waited at.
func (l layout) open(name string) (*os.File, error) {
	f, err := l.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", err, errdefs.ErrDataLoss)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file: %w", name, errdefs.ErrDataLoss)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Fetch implements remotes.Fetcher.
func (l layout) Fetch(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := desc.Digest.Validate(); err != nil { // it becomes a path
		return nil, fmt.Errorf("digest %q: %w (%w)", desc.Digest, err, errdefs.ErrDataLoss)
	}
	name := path.Join(ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())
	f, err := l.open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != desc.Size {
		err = fmt.Errorf("%s has %d bytes, its descriptor says %d: %w", name, info.Size(), desc.Size, errdefs.ErrDataLoss)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
