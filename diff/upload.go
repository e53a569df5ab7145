// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// uploadPiece is how much is written to the content store at once, in bytes: each
// write is a call there and back.
const uploadPiece = 512 << 10

// compressors are of the media types that Compare writes by itself.
var compressors = map[string]func(io.Writer, string) (io.WriteCloser, error){
	ocispec.MediaTypeImageLayer:     func(w io.Writer, _ string) (io.WriteCloser, error) { return uncompressed{w}, nil },
	ocispec.MediaTypeImageLayerGzip: func(w io.Writer, _ string) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	ocispec.MediaTypeImageLayerZstd: func(w io.Writer, _ string) (io.WriteCloser, error) { return zstd.NewWriter(w) },
}

type uncompressed struct{ io.Writer }

func (uncompressed) Close() error { return nil }

// producer writes a tar and returns its digest.
type producer func(io.Writer) (digest.Digest, error)

// upload writes the tar that produce makes to the content store.
func (d *Differ) upload(ctx context.Context, cfg diff.Config, produce producer) (_ ocispec.Descriptor, err error) {
	ref := cfg.Reference
	if ref == "" {
		ref = "strata-diff-" + rand.Text()
	}
	w, err := content.OpenWriter(ctx, d.cfg.Content, content.WithRef(ref), content.WithDescriptor(ocispec.Descriptor{MediaType: cfg.MediaType}))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("begin to write the new layer: %w", err)
	}
	defer func() { d.closeUpload(ctx, w, cfg, ref, err) }()
	if cfg.Reference != "" {
		// What an earlier attempt left under the caller's name.
		if err := w.Truncate(0); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("begin the new layer anew: %w", err)
		}
	}
	diffID, err := compress(w, cfg, produce)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return d.commitUpload(ctx, w, cfg, diffID)
}

// closeUpload closes the writer, which a commit has closed already, and after a
// failure drops what was written under a name of our own.
func (d *Differ) closeUpload(ctx context.Context, w content.Writer, cfg diff.Config, ref string, failure error) {
	if err := w.Close(); err != nil {
		log.G(ctx).WithError(err).WithField("ref", ref).Debug("close the content writer")
	}
	if failure == nil || cfg.Reference != "" {
		return
	}
	ctx, cancel := cleanupContext(ctx)
	defer cancel()
	if err := d.cfg.Content.Abort(ctx, ref); err != nil && !errdefs.IsNotFound(err) {
		log.G(ctx).WithError(err).WithField("ref", ref).Warn("a failed upload stays until containerd collects it")
	}
}

// compress writes what produce makes to w and returns the digest it had before.
func compress(w io.Writer, cfg diff.Config, produce producer) (diffID digest.Digest, err error) {
	pieces := bufio.NewWriterSize(w, uploadPiece)
	compressor := cfg.Compressor
	if compressor == nil {
		compressor = compressors[cfg.MediaType]
	}
	packed, err := compressor(pieces, cfg.MediaType)
	if err != nil {
		return "", fmt.Errorf("compress the new layer: %w", err)
	}
	diffID, err = produce(packed)
	// Closed after a failure, too: zstd has goroutines.
	if closeErr := packed.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = pieces.Flush()
	}
	return diffID, err
}

// commitUpload makes the blob known to containerd, under its digest and with its
// labels. That it was known already is no error.
func (d *Differ) commitUpload(ctx context.Context, w content.Writer, cfg diff.Config, diffID digest.Digest) (ocispec.Descriptor, error) {
	if cfg.Compressor != nil || cfg.MediaType != ocispec.MediaTypeImageLayer {
		cfg.Labels = withLabel(cfg.Labels, labels.LabelUncompressed, diffID.String())
	}
	dgst := w.Digest()
	err := w.Commit(ctx, 0, dgst, content.WithLabels(cfg.Labels))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, fmt.Errorf("store the new layer: %w", err)
	}
	info, err := d.cfg.Content.Info(ctx, dgst)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("find the new layer: %w", err)
	}
	if err := d.completeLabel(ctx, info, cfg.Labels[labels.LabelUncompressed]); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: cfg.MediaType, Digest: info.Digest, Size: info.Size}, nil
}

// completeLabel adds the diffID to a blob that was there before without it: pushes
// and unpacks of it would otherwise decompress it to learn it.
func (d *Differ) completeLabel(ctx context.Context, info content.Info, diffID string) error {
	if diffID == "" || info.Labels[labels.LabelUncompressed] != "" {
		return nil
	}
	info.Labels = withLabel(info.Labels, labels.LabelUncompressed, diffID)
	if _, err := d.cfg.Content.Update(ctx, info, "labels."+labels.LabelUncompressed); err != nil {
		return fmt.Errorf("label the layer %s: %w", info.Digest, err)
	}
	return nil
}

// withLabel leaves the map it is given alone: it is the caller's.
func withLabel(given map[string]string, name, value string) map[string]string {
	all := map[string]string{name: value}
	for k, v := range given {
		if k != name {
			all[k] = v
		}
	}
	return all
}
