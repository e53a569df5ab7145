// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// forPlatform is an image for another architecture.
func forPlatform(t testing.TB, img v1.Image, architecture, variant string) v1.Image {
	t.Helper()
	return withConfig(t, img, func(c *v1.ConfigFile) { c.Architecture, c.Variant = architecture, variant })
}

// withConfig is an image with another configuration.
func withConfig(t testing.TB, img v1.Image, change func(*v1.ConfigFile)) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	must(t, err)
	config = config.DeepCopy()
	change(config)
	img, err = mutate.ConfigFile(img, config)
	must(t, err)
	return img
}

// indexOf lists images, each for the platform that its configuration names.
func indexOf(t testing.TB, imgs ...v1.Image) v1.ImageIndex {
	t.Helper()
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range imgs {
		config, err := img.ConfigFile()
		must(t, err)
		p := &v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
		if p.Architecture == "" {
			p.Architecture = runtime.GOARCH
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p}})
	}
	return index
}

// zstdLayers is an image with the same layers, compressed in another way.
func zstdLayers(t testing.TB, img v1.Image) v1.Image {
	t.Helper()
	layers, err := img.Layers()
	must(t, err)
	config, err := img.ConfigFile()
	must(t, err)
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	for _, l := range layers {
		r, err := l.Uncompressed()
		must(t, err)
		var packed bytes.Buffer
		w, err := zstd.NewWriter(&packed)
		must(t, err)
		_, err = io.Copy(w, r)
		must(t, err)
		must(t, w.Close())
		base, err = mutate.AppendLayers(base, static.NewLayer(packed.Bytes(), types.OCILayerZStd))
		must(t, err)
	}
	return withConfig(t, base, func(c *v1.ConfigFile) { *c = *config })
}

// flip changes one byte of a file.
func flip(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	return os.WriteFile(path, data, 0o600)
}

// fifo puts a pipe in a file's place.
func fifo(path string) error {
	return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600))
}
