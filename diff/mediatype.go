// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/internal/inflate"
)

// packing says how a media type's blobs are compressed.
type packing int

const (
	// plain blobs are tars.
	plain packing = iota
	// sniffed blobs say by their first bytes what they are. containerd looks there
	// for every type that may be compressed, and images whose types are wrong work
	// because of it.
	sniffed
)

// packings are the layers there is an applier for: a tar, in at most one
// compression. Whatever wraps one further, such as "+encrypted", is another
// differ's, even if containerd's own table calls it gzip.
var packings = map[string]packing{
	ocispec.MediaTypeImageLayer:                   plain,
	ocispec.MediaTypeImageLayerGzip:               sniffed,
	ocispec.MediaTypeImageLayerZstd:               sniffed,
	nonDistributable:                              plain,
	nonDistributable + "+gzip":                    sniffed,
	nonDistributable + "+zstd":                    sniffed,
	images.MediaTypeDockerSchema2Layer:            sniffed,
	images.MediaTypeDockerSchema2LayerGzip:        sniffed,
	images.MediaTypeDockerSchema2LayerZstd:        sniffed,
	images.MediaTypeDockerSchema2LayerForeign:     sniffed,
	images.MediaTypeDockerSchema2LayerForeignGzip: sniffed,
}

// nonDistributable is deprecated by the image specification, and in use.
const nonDistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar"

// packingOf is ErrNotImplemented for what is not a layer tar, by which containerd
// knows to try its next differ.
func packingOf(mediaType string) (packing, error) {
	p, ok := packings[mediaType]
	if !ok {
		return p, fmt.Errorf("media type %q can't be applied here, list a differ that can in containerd's diff-service: %w",
			mediaType, errdefs.ErrNotImplemented)
	}
	return p, nil
}

// format is that of one blob.
func (p packing) format(blob io.ReaderAt) (inflate.Format, error) {
	if p == plain {
		return inflate.Uncompressed, nil
	}
	var prefix [4]byte
	n, err := blob.ReadAt(prefix[:], 0)
	if err != nil && err != io.EOF {
		return inflate.Uncompressed, fmt.Errorf("read the begin of the blob: %w", err)
	}
	return inflate.Detect(prefix[:n]), nil
}
