// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

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

// openBlob opens the blob of desc for reading, and returns how to wait for containerd's
// word that the caller's namespace has it: the store's directory holds the blobs of all
// namespaces. The question is on its way while the blob is read from there; nothing of
// what was read may be kept before the answer.
//
// ErrNotFound: the namespace has no such blob. ErrInvalidArgument: desc is wrong.
// ErrDataLoss: the file is not as long as it was when it was stored.
func (d *Differ) openBlob(ctx context.Context, desc ocispec.Descriptor) (_ blob, allowed func() error, err error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, nil, fmt.Errorf("digest %q: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	answer := make(chan error, 1)
	go func() { answer <- d.checkBlob(ctx, desc) }()
	allowed = sync.OnceValue(func() error { return <-answer })
	file, fileErr := d.openFile(ctx, desc)
	if fileErr == nil {
		return file, allowed, nil
	}
	if err := allowed(); err != nil {
		return nil, nil, err
	}
	if errdefs.IsDataLoss(fileErr) {
		return nil, nil, fileErr
	}
	log.G(ctx).WithError(fileErr).WithField("digest", desc.Digest).Debug("the blob is read through containerd's API")
	reader, err := d.cfg.Content.ReaderAt(ctx, desc)
	if err != nil {
		return nil, nil, fmt.Errorf("open blob %s: %w", desc.Digest, err)
	}
	return reader, allowed, nil
}

// checkBlob asks containerd whether the namespace has the blob as desc describes it.
func (d *Differ) checkBlob(ctx context.Context, desc ocispec.Descriptor) error {
	info, err := d.cfg.Content.Info(ctx, desc.Digest)
	if err != nil {
		return fmt.Errorf("find blob %s: %w", desc.Digest, err)
	}
	if info.Size != desc.Size {
		return fmt.Errorf("blob %s has %d bytes, its descriptor says %d: %w", desc.Digest, info.Size, desc.Size, errdefs.ErrInvalidArgument)
	}
	return nil
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
