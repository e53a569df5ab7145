// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// uncompressedImage has the layers as they are: the same diffIDs as imageOf's, in
// other blobs.
func uncompressedImage(t *testing.T, layers []layertest.Layer) v1.Image {
	t.Helper()
	img := build(t)
	for _, l := range layers {
		data, err := l.Tar()
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, static.NewLayer(data, types.OCIUncompressedLayer)); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// mislabelled is an image whose config gives its topmost layer a diffID that it does
// not have.
func mislabelled(t *testing.T, layers []layertest.Layer) v1.Image {
	t.Helper()
	img := imageOf(t, layers)
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.RootFS.DiffIDs[len(layers)-1] = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("1", 64)}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}
