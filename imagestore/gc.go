// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"
)

// Collected is what a collection removed.
type Collected struct {
	Blobs     int `json:"blobs"`
	Snapshots int `json:"snapshots"`
	// Bytes are those of the blobs, and of the layers that nothing uses any more.
	Bytes int64 `json:"bytes"`
}

// Unfinished says what GC does with what pulls and loads that failed have left.
type Unfinished string

const (
	// KeepUnfinished leaves for a day what the next pull can go on with.
	KeepUnfinished Unfinished = "keep"
	// DropUnfinished removes it.
	DropUnfinished Unfinished = "drop"
)

// holdings are the things in the store that take space.
type holdings struct {
	blobs, snapshots int
	bytes            int64
}

// GC removes what no image, lease or snapshot with the label containerd.io/gc.root
// refers to, and returns when its files are deleted.
func (s *Store) GC(ctx context.Context, unfinished Unfinished) (Collected, error) {
	ctx = s.Context(ctx)
	before, err := s.hold(ctx)
	if err != nil {
		return Collected{}, err
	}
	if unfinished == DropUnfinished {
		if err := s.dropWork(ctx, fmt.Sprintf("labels.%q", labelPull)); err != nil {
			return Collected{}, err
		}
	}
	if err := s.stir(ctx); err != nil {
		return Collected{}, err
	}
	if _, err := s.db.GarbageCollect(ctx); err != nil {
		return Collected{}, fmt.Errorf("collect garbage: %w", err)
	}
	if err := s.own.Cleanup(ctx); err != nil {
		return Collected{}, fmt.Errorf("delete what was removed: %w", err)
	}
	after, err := s.hold(ctx)
	if err != nil {
		return Collected{}, err
	}
	return Collected{
		Blobs: before.blobs - after.blobs, Snapshots: before.snapshots - after.snapshots, Bytes: before.bytes - after.bytes,
	}, nil
}

// hold counts what is in the store.
func (s *Store) hold(ctx context.Context) (h holdings, err error) {
	err = s.Content().Walk(ctx, func(info content.Info) error {
		h.blobs++
		h.bytes += info.Size
		return nil
	})
	if err != nil {
		return h, fmt.Errorf("count blobs: %w", err)
	}
	err = s.Snapshotter().Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		h.snapshots++
		if info.Kind != snapshots.KindCommitted {
			return nil // counting would walk it
		}
		usage, err := s.Snapshotter().Usage(ctx, info.Name)
		h.bytes += usage.Size
		return err
	})
	if err != nil {
		return h, fmt.Errorf("count snapshots: %w", err)
	}
	return h, nil
}

// stir makes a blob and a snapshot that nothing refers to. containerd's collector looks
// for files without a record, as a crash leaves them, only where it removes a record.
func (s *Store) stir(ctx context.Context) error {
	const text = "garbage"
	desc := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
	err := content.WriteBlob(ctx, s.Content(), text, strings.NewReader(text), desc)
	if err != nil {
		return fmt.Errorf("prepare the collection: %w", err)
	}
	if _, err := s.Snapshotter().View(ctx, text, ""); err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("prepare the collection: %w", err)
	}
	return nil
}
