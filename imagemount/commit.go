// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/strata-snapshotter/strata/imagestore"
)

// Note is what a commit says about itself in the image's history.
type Note struct {
	// Author is whoever made the layer; empty leaves the image's author alone.
	Author, Message string
	// Time is when. Times of files in the layer are left alone.
	Time time.Time
}

// Commit makes an image called ref of a snapshot: the one that it was mounted from, with
// one layer more. Configuration and platform stay the same. The snapshot stays what it
// is; the new layer is unpacked, so that the image can be mounted.
//
// ErrNotFound: there is no such snapshot. imagestore.ErrReference: ref is none.
// ErrFailedPrecondition: the snapshot is read-only.
func (m *Manager) Commit(ctx context.Context, target, ref string, note Note) (image imagestore.Image, err error) {
	ctx = m.store.Context(ctx)
	name, err := m.store.Reference(ref)
	if err != nil {
		return image, err
	}
	s, err := m.writable(ctx, target)
	if err != nil {
		return image, err
	}
	ctx, done, err := m.store.Lease(ctx)
	if err != nil {
		return image, err
	}
	defer func() { done(&err) }()
	base, err := m.base(ctx, s)
	if err != nil {
		return image, fmt.Errorf("the image %s that snapshot %q was made of: %w", s.Image, s.Name, err)
	}
	layer, diffID, err := m.layer(ctx, s, base)
	if err != nil {
		return image, err
	}
	if err := base.add(layer, diffID, note); err != nil {
		return image, err
	}
	if err := m.unpack(ctx, base.chain, layer, diffID); err != nil {
		return image, fmt.Errorf("unpack the new layer: %w", err)
	}
	if err := m.publish(ctx, name, base); err != nil {
		return image, fmt.Errorf("image %s: %w", name, err)
	}
	return m.store.Get(ctx, name, "")
}

// base is an image that gets a layer more.
type base struct {
	manifest ocispec.Manifest
	config   map[string]json.RawMessage // what this program does not know stays
	platform ocispec.Platform
	diffIDs  []digest.Digest
	chain    digest.Digest // of the layers before
}

// base reads the image that a snapshot was made of. The name may stand for another one
// meanwhile.
func (m *Manager) base(ctx context.Context, s Snapshot) (*base, error) {
	desc := ocispec.Descriptor{Digest: digest.Digest(s.Manifest)}
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("manifest %q: %w (%w)", s.Manifest, err, errdefs.ErrDataLoss)
	}
	b := &base{}
	if err := m.readJSON(ctx, desc, &b.manifest); err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := m.readJSON(ctx, b.manifest.Config, &b.config, &config); err != nil {
		return nil, err
	}
	b.platform, b.diffIDs = platforms.Normalize(config.Platform), config.RootFS.DiffIDs
	if len(b.diffIDs) > 0 {
		b.chain = identity.ChainID(b.diffIDs)
	}
	return b, nil
}

// readJSON reads a blob into each of several values.
func (m *Manager) readJSON(ctx context.Context, desc ocispec.Descriptor, into ...any) error {
	data, err := content.ReadBlob(ctx, m.store.Content(), desc)
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	for _, value := range into {
		if err := json.Unmarshal(data, value); err != nil {
			return fmt.Errorf("blob %s: %w (%w)", desc.Digest, err, errdefs.ErrDataLoss)
		}
	}
	return nil
}

// isDocker tells which of the two families of media types the image is in: registries
// don't like mixtures.
func (b *base) isDocker() bool {
	return b.manifest.MediaType == images.MediaTypeDockerSchema2Manifest || b.manifest.Config.MediaType == images.MediaTypeDockerSchema2Config
}

// layer writes the changes of a snapshot as a blob.
func (m *Manager) layer(ctx context.Context, s Snapshot, b *base) (layer ocispec.Descriptor, diffID digest.Digest, err error) {
	err = m.compare(ctx, s, func(_ context.Context, lower, upper []mount.Mount) (err error) {
		// Under the lease of the caller: the blob has to outlive the comparison.
		layer, err = m.store.Differ().Compare(ctx, lower, upper, diff.WithMediaType(ocispec.MediaTypeImageLayerGzip))
		return err
	})
	if err != nil {
		return layer, "", fmt.Errorf("compare snapshot %q with its image: %w", s.Name, err)
	}
	diffID, err = images.GetDiffID(ctx, m.store.Content(), layer)
	if err != nil {
		return layer, "", fmt.Errorf("layer %s: %w", layer.Digest, err)
	}
	layer = ocispec.Descriptor{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size}
	if b.isDocker() {
		layer.MediaType = images.MediaTypeDockerSchema2LayerGzip
	}
	return layer, diffID, nil
}

// add puts a layer on top.
func (b *base) add(layer ocispec.Descriptor, diffID digest.Digest, note Note) error {
	b.manifest.Layers = append(b.manifest.Layers, layer)
	b.diffIDs = append(b.diffIDs, diffID)
	when := note.Time.UTC()
	var history []ocispec.History
	if raw, ok := b.config["history"]; ok {
		if err := json.Unmarshal(raw, &history); err != nil {
			return fmt.Errorf("the image's history: %w (%w)", err, errdefs.ErrDataLoss)
		}
	}
	history = append(history, ocispec.History{Created: &when, CreatedBy: "strata commit", Author: note.Author, Comment: note.Message})
	changes := map[string]any{
		"created": when, "history": history, "rootfs": ocispec.RootFS{Type: "layers", DiffIDs: b.diffIDs},
	}
	if note.Author != "" {
		changes["author"] = note.Author
	}
	for key, value := range changes {
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("the image's %s: %w (%w)", key, err, errdefs.ErrInternal)
		}
		b.config[key] = raw
	}
	return nil
}

// publish writes configuration and manifest, and names the image.
func (m *Manager) publish(ctx context.Context, name string, b *base) error {
	configType, manifestType := ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest
	if b.isDocker() {
		configType, manifestType = images.MediaTypeDockerSchema2Config, images.MediaTypeDockerSchema2Manifest
	}
	config, err := m.writeJSON(ctx, configType, b.config, map[string]string{
		"containerd.io/gc.ref.snapshot." + imagestore.SnapshotterName: identity.ChainID(b.diffIDs).String(),
	})
	if err != nil {
		return err
	}
	b.manifest.Versioned, b.manifest.MediaType, b.manifest.Config = specs.Versioned{SchemaVersion: 2}, manifestType, config
	// Notes about the other image, such as its base.
	b.manifest.Annotations, b.manifest.Subject = nil, nil
	labels := map[string]string{"containerd.io/gc.ref.content.config": config.Digest.String()}
	for i, layer := range b.manifest.Layers {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = layer.Digest.String()
	}
	manifest, err := m.writeJSON(ctx, manifestType, b.manifest, labels)
	if err != nil {
		return err
	}
	record := images.Image{Name: name, Target: manifest}
	if own := platforms.Normalize(platforms.DefaultSpec()); platforms.FormatAll(b.platform) != platforms.FormatAll(own) {
		record.Labels = map[string]string{imagestore.LabelPlatform: platforms.FormatAll(b.platform)}
	}
	_, err = m.store.Images().Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		_, err = m.store.Images().Update(ctx, record)
	}
	return err
}

func (m *Manager) writeJSON(ctx context.Context, mediaType string, value any, labels map[string]string) (ocispec.Descriptor, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s: %w (%w)", mediaType, err, errdefs.ErrInternal)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	ref := "commit-" + desc.Digest.String()
	if err := content.WriteBlob(ctx, m.store.Content(), ref, bytes.NewReader(data), desc, content.WithLabels(labels)); err != nil {
		return desc, fmt.Errorf("write the %s: %w", mediaType, err)
	}
	return desc, nil
}
