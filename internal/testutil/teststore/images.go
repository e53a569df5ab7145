// SPDX-License-Identifier: Apache-2.0

package teststore

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// makeImages makes images.db, by containerd's own package, and the manifests and configs.
func makeImages(t testing.TB, dir string) {
	t.Helper()
	blobs := filepath.Join(dir, "content/blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "images.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	mdb := metadata.NewDB(db, nil, nil)
	ctx := namespaces.WithNamespace(context.Background(), "default")
	err = mdb.Init(ctx)
	for name, diffIDs := range map[string][]digest.Digest{
		"example.test/app:1": {Base, Common, App}, "example.test/app:latest": {Base, Common, App},
		"example.test/other:1": {Other, Common}, "example.test/gone:1": {App},
	} {
		err = errors.Join(err, addImage(ctx, mdb, blobs, name, diffIDs))
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func addImage(ctx context.Context, mdb *metadata.DB, blobs, name string, diffIDs []digest.Digest) error {
	config, err := putJSON(blobs, ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: diffIDs},
	})
	if err != nil {
		return err
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config}
	for _, d := range diffIDs {
		m.Layers = append(m.Layers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("blob of " + d.String()), Size: 1,
		})
	}
	target, err := putJSON(blobs, ocispec.MediaTypeImageManifest, m)
	if err != nil {
		return err
	}
	_, err = metadata.NewImageStore(mdb).Create(ctx, images.Image{Name: name, Target: target})
	return err
}

// putJSON writes a blob where containerd's content store has it. That store itself leaves a
// file open for the collector of garbage (its test for fs-verity), which keeps the file
// system of a test busy.
func putJSON(blobs, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, os.WriteFile(filepath.Join(blobs, desc.Digest.Encoded()), data, 0o444)
}
