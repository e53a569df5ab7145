// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// blob is an open blob of known size.
type blob interface {
	io.ReaderAt
	io.Closer
}

// openBlob opens the blob of desc for reading. The store's directory is only
// looked into after containerd said that the caller's namespace has the blob: it
// holds the blobs of all namespaces.
//
// ErrNotFound: the namespace has no such blob. ErrInvalidArgument: desc is wrong.
// ErrDataLoss: the file is not as long as it was when it was stored.
func (d *Differ) openBlob(ctx context.Context, desc ocispec.Descriptor) (blob, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	info, err := d.cfg.Content.Info(ctx, desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("find blob %s: %w", desc.Digest, err)
	}
	if info.Size != desc.Size {
		return nil, fmt.Errorf("blob %s has %d bytes, its descriptor says %d: %w", desc.Digest, info.Size, desc.Size, errdefs.ErrInvalidArgument)
	}
	file, err := d.openFile(ctx, desc)
	if err == nil {
		return file, nil
	}
	if errdefs.IsDataLoss(err) {
		return nil, err
	}
	log.G(ctx).WithError(err).WithField("digest", desc.Digest).Debug("the blob is read through containerd's API")
	reader, err := d.cfg.Content.ReaderAt(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", desc.Digest, err)
	}
	return reader, nil
}

var errNoRoot = errors.New("the content store's directory is not known")

// openFile opens the blob in the store's directory.
func (d *Differ) openFile(ctx context.Context, desc ocispec.Descriptor) (_ *os.File, err error) {
	if d.cfg.Root == nil {
		return nil, errNoRoot
	}
	root, err := d.cfg.Root(ctx)
	if err != nil {
		return nil, err
	}
	file, err := openBeneath(root, blobPath(desc.Digest))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	if err := checkFile(file, desc); err != nil {
		return nil, err
	}
	// Only a hint: where it fails reading is slower, not wrong.
	_ = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	return file, nil
}

// blobPath is the layout of containerd's local content store.
func blobPath(dgst digest.Digest) string {
	return "blobs/" + dgst.Algorithm().String() + "/" + dgst.Encoded()
}

// openBeneath opens rel below root for reading. No link is followed: what one
// leads to need not be the blob.
func openBeneath(root, rel string) (_ *os.File, err error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer func() { err = errors.Join(err, unix.Close(dir)) }()
	how := &unix.OpenHow{
		// O_NONBLOCK: a fifo in the blob's place must not hang the call.
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, rel, how)
		if err == nil {
			return os.NewFile(uintptr(fd), root+"/"+rel), nil
		}
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return nil, &os.PathError{Op: "open", Path: root + "/" + rel, Err: err}
		}
	}
}

// checkFile compares what was opened with what containerd knows of the blob. Its
// digest was checked when it was stored.
func checkFile(file *os.File, desc ocispec.Descriptor) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is %s, not a regular file", file.Name(), info.Mode())
	}
	if info.Size() != desc.Size {
		return fmt.Errorf("%s has %d bytes, %d were stored, remove the blob and pull it again: %w",
			file.Name(), info.Size(), desc.Size, errdefs.ErrDataLoss)
	}
	return nil
}
