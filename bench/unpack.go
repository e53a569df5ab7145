// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/unpack"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// sample is what one run took.
type sample struct {
	Wall time.Duration
	CPU  time.Duration // of all daemons of the side
	Peak int64         // bytes over idle, of the side's first daemon
}

// unpacked is an image whose snapshots are there until it is removed.
type unpacked struct {
	side   *side
	lease  leases.Lease
	config ocispec.Descriptor
	top    string // name of the topmost snapshot
	sample sample
}

// unpack does and measures what a pull does once the layers are there.
func (s *side) unpack(ctx context.Context, sc scenario) (_ *unpacked, err error) {
	ctx = inNamespace(ctx)
	u := &unpacked{side: s}
	manifest := s.images[sc.key()]
	if err := u.read(ctx, manifest); err != nil {
		return nil, err
	}
	// As for a pull: without, a garbage collection in between takes everything.
	if u.lease, err = s.client.LeasesService().Create(ctx, leases.WithRandomID()); err != nil {
		return nil, err
	}
	meter, err := s.meter()
	if err != nil {
		return nil, errors.Join(err, u.remove(ctx))
	}
	err = s.runUnpacker(leases.WithLease(ctx, u.lease.ID), manifest, sc)
	if err == nil {
		u.sample, err = meter.read()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", s.name, err), u.remove(context.WithoutCancel(ctx)))
	}
	return u, nil
}

func (u *unpacked) read(ctx context.Context, desc ocispec.Descriptor) error {
	store := u.side.client.ContentStore()
	manifest, err := images.Manifest(ctx, store, desc, nil)
	if err != nil {
		return err
	}
	u.config = manifest.Config
	data, err := content.ReadBlob(ctx, store, u.config)
	if err != nil {
		return err
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return err
	}
	u.top = identity.ChainID(config.RootFS.DiffIDs).String()
	return nil
}

func (s *side) runUnpacker(ctx context.Context, manifest ocispec.Descriptor, sc scenario) error {
	store := s.client.ContentStore()
	platform := unpack.Platform{
		SnapshotterKey:          s.snapshotter,
		Snapshotter:             s.client.SnapshotService(s.snapshotter),
		SnapshotterCapabilities: []string{snapshots.RebaseCap},
		Applier:                 s.client.DiffService(),
		ApplyOpts:               []diff.ApplyOpt{diff.WithSyncFs(sc.mode.syncFS)},
	}
	opts := []unpack.UnpackerOpt{unpack.WithUnpackPlatform(platform)}
	if sc.parallel {
		opts = append(opts, unpack.WithUnpackLimiter(semaphore.NewWeighted(unpacks)))
	}
	unpacker, err := unpack.NewUnpacker(ctx, store, opts...)
	if err != nil {
		return err
	}
	// The labels that a pull gives a manifest, to keep what it refers to.
	children := images.SetChildrenLabels(store, images.ChildrenHandler(store))
	err = images.Dispatch(ctx, unpacker.Unpack(children), nil, manifest)
	result, waitErr := unpacker.Wait()
	if err := errors.Join(err, waitErr); err != nil {
		return err
	}
	if result.Unpacks != 1 {
		return fmt.Errorf("%d images were unpacked, not 1", result.Unpacks)
	}
	return nil
}

// remove takes snapshots and files away again: the config refers to the topmost
// snapshot, the lease to all of them.
func (u *unpacked) remove(ctx context.Context) error {
	ctx = inNamespace(ctx)
	label := "labels.containerd.io/gc.ref.snapshot." + u.side.snapshotter
	_, err := u.side.client.ContentStore().Update(ctx, content.Info{Digest: u.config.Digest}, label)
	err = errors.Join(err, u.side.client.LeasesService().Delete(ctx, u.lease, leases.SynchronousDelete))
	if err != nil {
		return fmt.Errorf("%s: removing snapshots: %w", u.side.name, err)
	}
	if err := u.side.fs.waitEmpty(ctx); err != nil {
		return err
	}
	return u.side.fs.flush()
}

// meter measures the daemons from its making on.
type meter struct {
	side  *side
	start time.Time
	cpu   time.Duration
}

func (s *side) meter() (*meter, error) {
	if err := resetPeak(s.daemons[0].pid()); err != nil {
		return nil, err
	}
	cpu, err := s.cpu()
	return &meter{side: s, cpu: cpu, start: time.Now()}, err
}

func (m *meter) read() (sample, error) {
	wall := time.Since(m.start)
	cpu, err := m.side.cpu()
	if err != nil {
		return sample{}, err
	}
	first := m.side.daemons[0]
	peak, err := memory(first.pid(), "VmHWM")
	return sample{Wall: wall, CPU: cpu - m.cpu, Peak: max(0, peak-first.idle)}, err
}

func (s *side) cpu() (sum time.Duration, err error) {
	for _, d := range s.daemons {
		t, err := cpuTime(d.pid())
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}
