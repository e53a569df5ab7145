// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/imagestore"
	"github.com/strata-snapshotter/strata/overlayutil"
)

// Cover says what a mount may hide.
type Cover int

const (
	// CoverEmpty mounts over empty directories only.
	CoverEmpty Cover = iota
	// CoverAnything mounts over whatever is there.
	CoverAnything
)

// Access says what a mount is for.
type Access int

const (
	// ReadOnly mounts show the image.
	ReadOnly Access = iota
	// ReadWrite mounts keep what is written.
	ReadWrite
)

// Request is what Mount is asked for.
type Request struct {
	// Ref names the image, Dir the directory to mount at.
	Ref, Dir string
	Access   Access
	// Name is the name of the snapshot that keeps what is written. One that is there
	// already, of the same image, is mounted again. Empty: a new one, whose name is
	// made up.
	Name  string
	Cover Cover
}

// Mount mounts an image.
//
// ErrName: the name is none. ErrNotFound: there is no such image or directory, or the
// image is not unpacked.
// ErrAlreadyExists: the snapshot of that name is of another image, or read-only.
// ErrFailedPrecondition: it is mounted already, or the directory can't be used.
func (m *Manager) Mount(ctx context.Context, r Request) (_ Snapshot, err error) {
	ctx = m.store.Context(ctx)
	if err := checkRequest(&r); err != nil {
		return Snapshot{}, err
	}
	t, err := openTarget(r.Dir, m.store.Root(), r.Cover)
	if err != nil {
		return Snapshot{}, err
	}
	defer func() { err = errors.Join(err, t.parent.Close()) }()
	if err := m.Sweep(ctx); err != nil {
		return Snapshot{}, err
	}
	s, mounts, undo, err := m.take(ctx, r, t)
	if err != nil {
		return Snapshot{}, err
	}
	if err := m.mountAt(ctx, t, mounts, s); err != nil {
		return Snapshot{}, errors.Join(fmt.Errorf("mount %s at %s: %w", r.Ref, t.path, err), undo(context.WithoutCancel(ctx)))
	}
	return m.Find(ctx, s.Name)
}

func checkRequest(r *Request) error {
	if r.Name == "" {
		r.Name = newName()
	} else if r.Access == ReadOnly {
		return fmt.Errorf("%q: a read-only mount has no name: %w", r.Name, ErrName)
	}
	return checkName(r.Name)
}

// take makes, or finds, the snapshot, with the record of the mount that is to come.
// undo takes it back.
func (m *Manager) take(ctx context.Context, r Request, t *target) (s snapshots.Info, mounts []mount.Mount, undo func(context.Context) error, err error) {
	image, err := m.image(ctx, r.Ref)
	if err != nil {
		return s, nil, nil, err
	}
	here, err := surroundings()
	if err != nil {
		return s, nil, nil, err
	}
	labels := map[string]string{
		labelRoot: time.Now().UTC().Format(time.RFC3339), LabelImage: image.Name, LabelManifest: image.Manifest.Digest.String(),
		labelKeep: image.Manifest.Digest.String(), labelDir: t.path, labelBoot: here.boot,
	}
	sn := m.store.Snapshotter()
	create := sn.View
	if r.Access == ReadWrite {
		create = sn.Prepare
	}
	mounts, err = create(ctx, r.Name, image.ChainID.String(), snapshots.WithLabels(labels))
	undo = func(ctx context.Context) error { return sn.Remove(ctx, r.Name) }
	if errdefs.IsAlreadyExists(err) {
		mounts, err = m.again(ctx, r, labels)
		undo = func(ctx context.Context) error { return m.forget(ctx, r.Name) }
	}
	return snapshots.Info{Name: r.Name, Labels: labels}, mounts, undo, err
}

// image finds an image that is unpacked.
func (m *Manager) image(ctx context.Context, ref string) (imagestore.Image, error) {
	image, err := m.store.Get(ctx, ref, "")
	if err != nil {
		return image, err
	}
	_, err = m.store.Chain(ctx, image)
	return image, err
}

// again prepares a snapshot that is there for another mount.
func (m *Manager) again(ctx context.Context, r Request, labels map[string]string) ([]mount.Mount, error) {
	s, err := m.Find(ctx, r.Name)
	switch {
	case err != nil:
		return nil, err
	case s.Name != r.Name || !s.Writable || s.Manifest != labels[LabelManifest]:
		return nil, fmt.Errorf("there is a snapshot %q of image %s (%s) already, choose another name: %w", s.Name, s.Image, s.Manifest, errdefs.ErrAlreadyExists)
	case s.State == Elsewhere:
		return nil, elsewhere(s)
	case s.State == Mounted:
		return nil, fmt.Errorf("snapshot %q is mounted at %s already: %w", s.Name, s.Dir, errdefs.ErrFailedPrecondition)
	}
	if err := m.label(ctx, r.Name, labels); err != nil {
		return nil, err
	}
	return m.store.Snapshotter().Mounts(ctx, r.Name)
}

// mountAt mounts and completes the record.
func (m *Manager) mountAt(ctx context.Context, t *target, mounts []mount.Mount, s snapshots.Info) error {
	path := t.procPath()
	if len(mounts) > 0 && mounts[0].Type == overlayutil.FuseOverlayfs {
		path = t.path // it is another process that mounts
	}
	if err := mount.All(mounts, path); err != nil {
		return err
	}
	here, err := surroundings()
	if err == nil {
		labels := maps.Clone(s.Labels)
		labels[labelIdentity] = here.mounts[t.path]
		err = m.label(ctx, s.Name, labels)
	}
	if err != nil {
		return errors.Join(err, unmount(t.path))
	}
	return nil
}

// label sets the labels of a snapshot.
func (m *Manager) label(ctx context.Context, name string, labels map[string]string) error {
	_, err := m.store.Snapshotter().Update(ctx, snapshots.Info{Name: name, Labels: labels}, "labels")
	if err != nil {
		return fmt.Errorf("snapshot %q: %w", name, err)
	}
	return nil
}

// forget drops the record of a mount.
func (m *Manager) forget(ctx context.Context, name string) error {
	info, err := m.store.Snapshotter().Stat(ctx, name)
	if err != nil {
		return fmt.Errorf("snapshot %q: %w", name, err)
	}
	for _, key := range []string{labelDir, labelBoot, labelIdentity} {
		delete(info.Labels, key)
	}
	return m.label(ctx, name, info.Labels)
}

// Unmount unmounts what is mounted at a directory, or the snapshot of that name. A view
// is removed; a snapshot with changes stays.
//
// ErrNotFound: nothing of this store is mounted there. ErrFailedPrecondition: it is in
// use, or in another mount namespace.
func (m *Manager) Unmount(ctx context.Context, target string) error {
	ctx = m.store.Context(ctx)
	s, err := m.Find(ctx, target)
	if err != nil {
		return err
	}
	switch s.State {
	case None:
		return fmt.Errorf("snapshot %q is not mounted: %w", s.Name, errdefs.ErrNotFound)
	case Elsewhere:
		return elsewhere(s)
	case Mounted:
		if err := unmount(s.Dir); err != nil {
			return err
		}
	case Stale: // only the record is left
	}
	return m.end(ctx, s)
}

// end is what comes after an unmount.
func (m *Manager) end(ctx context.Context, s Snapshot) error {
	if s.Writable {
		return m.forget(ctx, s.Name)
	}
	if err := m.store.Snapshotter().Remove(ctx, s.Name); err != nil {
		return fmt.Errorf("snapshot %q: %w", s.Name, err)
	}
	return nil
}

// Sweep ends what is left of mounts that are gone, as after a reboot: views are removed,
// so that they keep no layers any more. Mount does it, too.
func (m *Manager) Sweep(ctx context.Context) error {
	ctx = m.store.Context(ctx)
	list, err := m.List(ctx)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s.State == Stale {
			if err := m.end(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

func unmount(dir string) error {
	err := mount.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s is in use, end what uses it (fuser -vm %s): %w", dir, dir, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w (%w)", dir, err, errdefs.ErrFailedPrecondition)
	}
	return nil
}
