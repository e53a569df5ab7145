// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// LoadOptions are what to load, and under which names.
type LoadOptions struct {
	// Path is an OCI layout's directory or an archive. Empty: an archive is read from
	// Reader.
	Path   string
	Reader io.Reader
	// Name is for images without a complete name of their own: one with a tag alone gets
	// it behind Name. If there is one image only, Name, with a tag of its own, is its name.
	// Empty means localhost/ and the name of the file.
	Name string
	// Platform is one as "linux/arm64"; empty means this machine's.
	Platform string
	// Progress may be nil.
	Progress Progress
}

// describe names the archive or layout for messages.
func (o *LoadOptions) describe() string {
	if o.Path == "" {
		return "the archive"
	}
	return o.Path
}

// bundle is what an archive or layout was found to be.
type bundle struct {
	from     remotes.Fetcher
	index    ocispec.Index
	raw      []byte // of the index
	describe string // for messages
}

// Load brings the images of an archive or a layout into the store: an OCI layout as a
// directory or a tar, or an archive of docker save, the tars plain or compressed with
// gzip or zstd.
//
// ErrDataLoss, ErrInvalidArgument: it is damaged, cut off, or something else. ErrNotFound:
// there is no such file, or no image for the platform. ErrReference: no name can be made
// for an image, or a name is none.
func (s *Store) Load(ctx context.Context, o LoadOptions) (loaded []Image, err error) {
	platform, matcher, err := wantedPlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	err = s.working(s.Context(ctx), loading, func(ctx context.Context) error {
		o.Progress.tell(Event{Step: StepReading, Image: o.describe()})
		b, closeBundle, err := s.openBundle(ctx, o)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeBundle()) }()
		entries, err := s.entries(ctx, b, o)
		if err != nil {
			return err
		}
		for _, e := range entries {
			j := &job{s: s, from: b.from, matcher: matcher, asked: o.Platform != "", blobs: true, progress: o.Progress, image: Image{Name: e.name, Target: e.desc}}
			if err := s.keep(ctx, j, platform); err != nil {
				return fmt.Errorf("load %s: %w", b.describe, err)
			}
			loaded = append(loaded, j.image)
		}
		return nil
	})
	return loaded, err
}

// loading is what stands on the leases of loads for an image's name.
const loading = "load"

func (s *Store) openBundle(ctx context.Context, o LoadOptions) (*bundle, func() error, error) {
	if o.Path == "" {
		b, err := s.readArchive(ctx, o.Reader, o.describe())
		return b, func() error { return nil }, err
	}
	info, err := os.Stat(o.Path)
	if err != nil {
		return nil, nil, fileError(err)
	}
	if info.IsDir() {
		return openLayout(o.Path)
	}
	f, err := os.OpenFile(o.Path, os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fileError(err)
	}
	b, err := s.readArchive(ctx, f, o.Path)
	return b, f.Close, errors.Join(err, onError(err, f.Close))
}

// onError closes what nobody else will close.
func onError(err error, closeIt func() error) error {
	if err == nil {
		return nil
	}
	return closeIt()
}

func fileError(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("load: %w (%w)", err, errdefs.ErrNotFound)
	}
	return fmt.Errorf("load: %w (%w)", err, errdefs.ErrFailedPrecondition)
}

// readArchive puts what is in an archive into the content store.
func (s *Store) readArchive(ctx context.Context, r io.Reader, describe string) (_ *bundle, err error) {
	if err := s.abortIngests(ctx); err != nil {
		return nil, err
	}
	plain, closePlain, err := decompress(r)
	if err != nil {
		return nil, archiveError(ctx, describe, err)
	}
	defer func() { err = errors.Join(err, closePlain()) }()
	desc, err := archive.ImportIndex(ctx, s.Content(), contextReader{ctx, plain})
	if err != nil {
		return nil, archiveError(ctx, describe, err)
	}
	b := &bundle{from: nothing, describe: describe}
	if b.raw, err = content.ReadBlob(ctx, s.Content(), desc); err == nil {
		err = json.Unmarshal(b.raw, &b.index)
	}
	if err != nil {
		return nil, archiveError(ctx, describe, err)
	}
	return b, nil
}

// abortIngests forgets what an archive that was cut off has left half written. Nothing
// says that the next archive has the same in a file of that name.
func (s *Store) abortIngests(ctx context.Context) error {
	found, err := s.Content().ListStatuses(ctx)
	if err != nil {
		return fmt.Errorf("list what was not written to its end: %w", err)
	}
	for _, status := range found {
		if !strings.HasPrefix(status.Ref, "tar-") {
			continue
		}
		if err := s.Content().Abort(ctx, status.Ref); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("forget %s: %w", status.Ref, err)
		}
	}
	return nil
}

// archiveError gives a class to what the importer says, which has none of its own.
func archiveError(ctx context.Context, describe string, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("load %s: %w (%w)", describe, err, errdefs.ErrResourceExhausted)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("load %s: it ends too early: %w (%w)", describe, err, errdefs.ErrDataLoss)
	}
	return fmt.Errorf("load %s: not an image archive, or a damaged one: %w (%w)", describe, err, errdefs.ErrDataLoss)
}

// contextReader ends with its context: an importer reads on otherwise.
type contextReader struct {
	ctx context.Context //nolint:containedctx // io.Reader has no parameter for it
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// entry is an image of a bundle with its name to be.
type entry struct {
	name string
	desc ocispec.Descriptor
}

// entries lists the images of a bundle. If none of several has a name they are one image
// for several platforms, and their index is what it is called for.
func (s *Store) entries(ctx context.Context, b *bundle, o LoadOptions) ([]entry, error) {
	var found []ocispec.Descriptor
	named := false
	for _, desc := range b.index.Manifests {
		if images.IsManifestType(desc.MediaType) || images.IsIndexType(desc.MediaType) {
			found = append(found, desc)
			named = named || annotated(desc) != ""
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("load %s: there is no image in it: %w", b.describe, errdefs.ErrDataLoss)
	}
	if !named && len(found) > 1 {
		desc, err := s.writeIndex(ctx, b.raw)
		if err != nil {
			return nil, err
		}
		found = []ocispec.Descriptor{desc}
	}
	names := naming{registry: s.options.Registry, name: o.Name, path: o.Path, only: oneTarget(found)}
	entries := make([]entry, len(found))
	for i, desc := range found {
		name, err := names.of(desc)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", b.describe, err)
		}
		desc.Annotations = nil // they are of this bundle
		entries[i] = entry{name, desc}
	}
	return entries, nil
}

func oneTarget(found []ocispec.Descriptor) bool {
	for _, desc := range found {
		if desc.Digest != found[0].Digest {
			return false
		}
	}
	return true
}

// writeIndex puts the index of a bundle into the content store.
func (s *Store) writeIndex(ctx context.Context, raw []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	err := content.WriteBlob(ctx, s.Content(), remotes.MakeRefKey(ctx, desc), strings.NewReader(string(raw)), desc)
	if err != nil {
		return desc, fmt.Errorf("write index: %w", err)
	}
	return desc, nil
}
