// SPDX-License-Identifier: Apache-2.0

package teststore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// makeImages makes images.db and the manifests and configs, as containerd's own packages
// write them.
func makeImages(t testing.TB, dir string) {
	t.Helper()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(dir, "images.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	mdb := metadata.NewDB(db, blobs, nil)
	ctx := namespaces.WithNamespace(context.Background(), "default")
	err = mdb.Init(ctx)
	for name, diffIDs := range map[string][]digest.Digest{
		"example.test/app:1": {Base, Common, App}, "example.test/app:latest": {Base, Common, App},
		"example.test/other:1": {Other, Common}, "example.test/gone:1": {App},
	} {
		err = errors.Join(err, addImage(ctx, mdb, name, diffIDs))
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

func addImage(ctx context.Context, mdb *metadata.DB, name string, diffIDs []digest.Digest) error {
	config, err := putJSON(ctx, mdb.ContentStore(), ocispec.MediaTypeImageConfig, ocispec.Image{
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
	target, err := putJSON(ctx, mdb.ContentStore(), ocispec.MediaTypeImageManifest, m)
	if err != nil {
		return err
	}
	_, err = metadata.NewImageStore(mdb).Create(ctx, images.Image{Name: name, Target: target})
	return err
}

func putJSON(ctx context.Context, blobs content.Store, mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, content.WriteBlob(ctx, blobs, desc.Digest.String(), bytes.NewReader(data), desc)
}
