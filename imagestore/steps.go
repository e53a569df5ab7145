// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// steps turns what happens to an image's layers into events. It does not change once it
// is made.
type steps struct {
	image    Image
	progress Progress
	diffIDs  map[digest.Digest]digest.Digest // of blobs
	byBlob   map[digest.Digest]int           // the first layer with a blob, from 1
	byChain  map[string]int                  // chainIDs are different in any image
}

func newSteps(image Image, progress Progress) steps {
	s := steps{
		image: image, progress: progress, diffIDs: map[digest.Digest]digest.Digest{},
		byBlob: map[digest.Digest]int{}, byChain: map[string]int{},
	}
	for i := len(image.Layers); i > 0; i-- {
		blob := image.Layers[i-1].Digest
		s.diffIDs[blob], s.byBlob[blob] = image.DiffIDs[i-1], i
		s.byChain[identity.ChainID(image.DiffIDs[:i]).String()] = i
	}
	return s
}

func (s *steps) begin() {
	e := Event{Step: StepUnpacking, Image: s.image.Name, Digest: s.image.Target.Digest}
	for i, l := range s.image.Layers {
		e.Layers = append(e.Layers, Layer{Digest: l.Digest, DiffID: s.image.DiffIDs[i], Size: l.Size})
		e.Total += l.Size
	}
	s.progress.tell(e)
}

// layer tells how far a blob is.
func (s *steps) layer(step Step, desc ocispec.Descriptor, done int64) {
	s.progress.tell(Event{Step: step, Image: s.image.Name, Digest: desc.Digest, Index: s.byBlob[desc.Digest], Done: done, Total: desc.Size})
}

// chain tells that a layer is in its place. Where chainID is none of the image's there is
// nothing to tell.
func (s *steps) chain(step Step, chainID string) {
	if i := s.byChain[chainID]; i > 0 {
		desc := s.image.Layers[i-1]
		s.progress.tell(Event{Step: step, Image: s.image.Name, Digest: desc.Digest, Index: i, Done: desc.Size, Total: desc.Size})
	}
}

// watched is the snapshotter as the unpacker uses it: it sees which layers are here.
type watched struct {
	snapshots.Snapshotter
	store *Store
	steps *steps
}

// Prepare implements snapshots.Snapshotter.
func (w watched) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	mounts, err := w.Snapshotter.Prepare(ctx, key, parent, opts...)
	staged := err == nil && len(mounts) > 0 && mounts[len(mounts)-1].ReadOnly()
	if staged || errdefs.IsAlreadyExists(err) {
		var info snapshots.Info
		for _, opt := range opts {
			if err := opt(&info); err != nil {
				return nil, err
			}
		}
		w.steps.chain(StepExists, info.Labels[snapshots.LabelSnapshotRef])
	}
	return mounts, err
}

// Commit implements snapshots.Snapshotter.
func (w watched) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	err := w.Snapshotter.Commit(ctx, name, key, opts...)
	if err == nil || errdefs.IsAlreadyExists(err) {
		w.steps.chain(StepLayerDone, name)
	}
	return err
}

// Remove implements snapshots.Snapshotter. What was half extracted goes at once, and not
// only its name; the unpacker removes it twice and would complain the second time.
func (w watched) Remove(ctx context.Context, key string) error {
	return w.store.RemoveSnapshot(ctx, key)
}
