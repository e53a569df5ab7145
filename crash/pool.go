// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/internal/layertest"
)

// poolSeed makes the layers, which are the same in all runs: a run's own seed says what
// is done with them.
const poolSeed = 20260101

// pool is the images that are unpacked.
type pool struct {
	dir    string // of the content store
	store  content.Store
	images []*image

	mu    sync.Mutex
	trees map[string]layertest.Tree // by the names of a chain's layers
}

// layer is one of an image, or what a container wrote.
type layer struct {
	name    string // unique
	entries layertest.Layer
	desc    ocispec.Descriptor
	diffID  digest.Digest
}

// image is a chain of layers.
type image struct {
	layers   []*layer
	chainIDs []digest.Digest
}

// sizesUpTo has three with more files than are synced one by one, whatever the others are.
func sizesUpTo(largest int) layertest.Sizes {
	return layertest.Sizes{Small: 30, Medium: largest * 3 / 10, Large: largest, Three: 600}
}

// newPool makes the layers: the largest has as many files as largest says.
func newPool(ctx context.Context, dir string, largest int) (*pool, error) {
	store, err := local.NewStore(dir)
	if err != nil {
		return nil, err
	}
	p := &pool{dir: dir, store: store, trees: map[string]layertest.Tree{}}
	random := newRandom(poolSeed, 0)
	layers := map[string]*layer{}
	for name, entries := range layertest.Shapes(random, sizesUpTo(largest)) {
		l := &layer{name: name, entries: entries}
		if err := p.ingest(ctx, l); err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
		layers[name] = l
	}
	for _, chain := range layertest.Chains {
		p.images = append(p.images, newImage(layers, strings.Fields(chain)))
	}
	return p, nil
}

func newImage(layers map[string]*layer, names []string) *image {
	img := &image{}
	for _, name := range names {
		img.layers = append(img.layers, layers[name])
		img.chainIDs = append(img.chainIDs, layers[name].diffID)
	}
	identity.ChainIDs(img.chainIDs) // in place
	return img
}

// ingest stores a layer, compressed if its diffID is even, so that both ways are gone.
func (p *pool) ingest(ctx context.Context, l *layer) error {
	blob, err := l.entries.Tar()
	if err != nil {
		return err
	}
	l.diffID = digest.FromBytes(blob)
	mediaType := ocispec.MediaTypeImageLayer
	if l.diffID[len(l.diffID)-1]%2 == 0 {
		mediaType = ocispec.MediaTypeImageLayerGzip
		if blob, err = compress(blob); err != nil {
			return err
		}
	}
	l.desc = ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	err = content.WriteBlob(namespaces.WithNamespace(ctx, namespace), p.store, l.name, bytes.NewReader(blob), l.desc)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(b)
	err = errors.Join(err, w.Close()) // which writes the rest
	return out.Bytes(), err
}

// tree is what a chain of layers shows, bottom first.
func (p *pool) tree(chain []*layer) (layertest.Tree, error) {
	var key strings.Builder
	entries := make([]layertest.Layer, 0, len(chain))
	for _, l := range chain {
		key.WriteString(l.name + " ")
		entries = append(entries, l.entries)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if tree, ok := p.trees[key.String()]; ok {
		return tree, nil
	}
	model, err := layertest.Truth(entries)
	if err != nil {
		return nil, err
	}
	tree := model.Tree()
	// What containers wrote is another thing each time.
	if !strings.Contains(key.String(), containerLayer) {
		p.trees[key.String()] = tree
	}
	return tree, nil
}
