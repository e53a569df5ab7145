// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// key names a scenario's image: those of several modes share it.
func (s scenario) key() string {
	key := s.format
	for _, name := range s.layers {
		key += " " + name
	}
	return key
}

// ingest writes an image of each scenario's layers into the content store.
func (s *side) ingest(ctx context.Context, c *corpus, scenarios []scenario) error {
	ctx = inNamespace(ctx)
	s.images = map[string]ocispec.Descriptor{}
	for _, sc := range scenarios {
		if _, ok := s.images[sc.key()]; ok {
			continue
		}
		manifest, err := s.ingestImage(ctx, c, sc)
		if err != nil {
			return err
		}
		s.images[sc.key()] = manifest
	}
	return nil
}

func (s *side) ingestImage(ctx context.Context, c *corpus, sc scenario) (ocispec.Descriptor, error) {
	var manifest ocispec.Manifest
	config := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		RootFS:   ocispec.RootFS{Type: "layers"},
		Author:   sc.key(), // images of one set of layers in two formats are two
	}
	for _, name := range sc.layers {
		l, err := c.layer(name, sc.format)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if err := s.ingestLayer(ctx, l); err != nil {
			return ocispec.Descriptor{}, err
		}
		manifest.Layers = append(manifest.Layers, l.desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
	}
	var err error
	if manifest.Config, err = s.ingestJSON(ctx, ocispec.MediaTypeImageConfig, config); err != nil {
		return ocispec.Descriptor{}, err
	}
	manifest.Versioned, manifest.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	return s.ingestJSON(ctx, ocispec.MediaTypeImageManifest, manifest)
}

func (s *side) ingestJSON(ctx context.Context, mediaType string, value any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, s.write(ctx, desc, bytes.NewReader(data))
}

func (s *side) ingestLayer(ctx context.Context, l *layer) (err error) {
	f, err := os.Open(l.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return s.write(ctx, l.desc, f)
}

// write puts a blob where no garbage collection takes it away.
func (s *side) write(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error {
	keep := content.WithLabels(map[string]string{"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339)})
	err := content.WriteBlob(ctx, s.client.ContentStore(), desc.Digest.String(), r, desc, keep)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// warm reads a scenario's blobs, so that no run waits for the disk.
func (s *side) warm(c *corpus, sc scenario) error {
	for _, name := range sc.layers {
		l, err := c.layer(name, sc.format)
		if err != nil {
			return err
		}
		path := filepath.Join(s.fs.dir, "containerd", "io.containerd.content.v1.content", "blobs", "sha256", l.desc.Digest.Encoded())
		if err := readThrough(path); err != nil {
			return err
		}
	}
	return nil
}

func readThrough(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(io.Discard, f)
	return err
}
