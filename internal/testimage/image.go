// SPDX-License-Identifier: Apache-2.0

package testimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Build makes an image for this machine's architecture whose containers run cmd.
func Build(cmd []string, layers ...Layer) (v1.Image, error) {
	blobs := make([][]byte, 0, len(layers))
	for i, entries := range layers {
		var buf bytes.Buffer
		if err := entries.Tar(&buf); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		blobs = append(blobs, buf.Bytes())
	}
	return BuildTars(cmd, blobs...)
}

// BuildTars is Build of layers that are uncompressed tar streams already.
func BuildTars(cmd []string, layers ...[]byte) (v1.Image, error) {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Created:      v1.Time{Time: epoch},
		Config: v1.Config{
			Cmd: cmd,
			Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		},
		RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, fmt.Errorf("setting the image's config: %w", err)
	}
	for i, blob := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(blob)), nil
		})
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, fmt.Errorf("appending layer %d: %w", i, err)
		}
	}
	return img, nil
}

// Tar writes the layer as an uncompressed tar stream.
func (l Layer) Tar(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, e := range l {
		h := e.Header
		h.Size = int64(len(e.Content))
		if err := tw.WriteHeader(&h); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
		if _, err := tw.Write(e.Content); err != nil {
			return fmt.Errorf("content of %q: %w", h.Name, err)
		}
	}
	return tw.Close()
}

// WriteArchive writes img to path as an archive that `ctr images import` and
// `docker load` take, under the full name ref ("example.test/name:tag").
func WriteArchive(path, ref string, img v1.Image) (err error) {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("image name %q: %w", ref, err)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return tarball.Write(tag, img, f)
}

// Push uploads img to the registry that ref names, over plain HTTP where that is
// on this machine.
func Push(ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return fmt.Errorf("image name %q: %w", ref, err)
	}
	return remote.Write(tag, img)
}
