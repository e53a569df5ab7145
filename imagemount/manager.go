// SPDX-License-Identifier: Apache-2.0

package imagemount

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/imagestore"
)

// Labels of the snapshots of this package. The rest of a label's name is containerd's.
const (
	// LabelImage names the image that a snapshot was made of.
	LabelImage = "strata/image"
	// LabelManifest is the digest of the image's manifest at that time. It also keeps
	// the manifest and all that belongs to it, see labelKeep.
	LabelManifest = "strata/manifest"

	labelDir      = "strata/mount.dir"
	labelBoot     = "strata/mount.boot"
	labelIdentity = "strata/mount.identity"

	labelRoot = "containerd.io/gc.root"
	// labelKeep is how a snapshot refers to a blob (containerd's garbage collection).
	labelKeep = "containerd.io/gc.ref.content.manifest"
)

// Manager mounts images of one store. It keeps nothing in memory.
type Manager struct {
	store *imagestore.Store
}

// New makes a Manager for an open store.
func New(store *imagestore.Store) *Manager { return &Manager{store: store} }

// Snapshot is a snapshot that this package made.
type Snapshot struct {
	// Name is the name that Mount was given, or made up.
	Name string `json:"name"`
	// Writable says that it keeps changes; others are views.
	Writable bool `json:"writable"`
	// Image is the image's name, Manifest the digest that it stood for.
	Image    string `json:"image"`
	Manifest string `json:"manifest"`
	// Dir is the absolute path where it is, or was, mounted. Empty: nowhere.
	Dir string `json:"directory,omitempty"`
	// State is what has become of the mount.
	State State `json:"state"`
	// Size is what the changes take on disk, in bytes.
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`

	info   snapshots.Info
	holder string // a process that has the mount, if it is elsewhere
}

// validName is what a snapshot can be called: no chainID, and no key of an unpacker.
var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// ErrName is in every error about a name that no snapshot can have. Its class is
// ErrInvalidArgument.
var ErrName = fmt.Errorf("not a name for a snapshot: %w", errdefs.ErrInvalidArgument)

func checkName(name string) error {
	if !validName.MatchString(name) || strings.HasPrefix(name, snapshots.UnpackKeyPrefix+"-") {
		return fmt.Errorf("%q: letters, digits, '_', '.' and '-', up to 128, and not \"%s-\" at the begin: %w", name, snapshots.UnpackKeyPrefix, ErrName)
	}
	return nil
}

// newName makes up a name.
func newName() string { return "mount-" + strings.ToLower(rand.Text()[:10]) }

// List returns the snapshots that Mount has made, by name.
func (m *Manager) List(ctx context.Context) ([]Snapshot, error) {
	ctx = m.store.Context(ctx)
	here, err := surroundings()
	if err != nil {
		return nil, err
	}
	var list []Snapshot
	err = m.store.Snapshotter().Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Labels[LabelImage] != "" && info.Kind != snapshots.KindCommitted {
			list = append(list, here.describe(info))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	for i := range list {
		if list[i].Writable {
			usage, err := m.store.Snapshotter().Usage(ctx, list[i].Name)
			if err != nil {
				return nil, fmt.Errorf("snapshot %q: %w", list[i].Name, err)
			}
			list[i].Size = usage.Size
		}
	}
	return list, nil
}

// Find returns the snapshot of that name, or the one that is mounted at that directory.
//
// ErrNotFound: there is none.
func (m *Manager) Find(ctx context.Context, target string) (Snapshot, error) {
	list, err := m.List(ctx)
	if err != nil {
		return Snapshot{}, err
	}
	dir := lexical(target)
	var past *Snapshot
	for i, s := range list {
		switch {
		case s.Name == target, s.Dir == dir && s.State == Mounted:
			return s, nil
		case s.Dir == dir:
			past = &list[i]
		}
	}
	if past != nil {
		return *past, nil
	}
	return Snapshot{}, fmt.Errorf("there is no snapshot called %q, and none is mounted there: %w", target, errdefs.ErrNotFound)
}

// writable is Find for what only a snapshot with changes can be used for.
func (m *Manager) writable(ctx context.Context, target string) (Snapshot, error) {
	s, err := m.Find(ctx, target)
	if err == nil && !s.Writable {
		err = fmt.Errorf("%s is mounted read-only, nothing can have changed: %w", target, errdefs.ErrFailedPrecondition)
	}
	return s, err
}

// Remove removes a snapshot and what was written to it. force unmounts it before.
//
// ErrFailedPrecondition: it is mounted, here without force or in another mount namespace.
func (m *Manager) Remove(ctx context.Context, target string, how Removal) error {
	ctx = m.store.Context(ctx)
	s, err := m.Find(ctx, target)
	if err != nil {
		return err
	}
	switch {
	case s.State == Elsewhere:
		return elsewhere(s)
	case s.State == Mounted && how != Unmounting:
		return fmt.Errorf("snapshot %q is mounted at %s, unmount it first: %w", s.Name, s.Dir, errdefs.ErrFailedPrecondition)
	case s.State == Mounted:
		if err := unmount(s.Dir); err != nil {
			return err
		}
	}
	if err := m.store.Snapshotter().Remove(ctx, s.Name); err != nil {
		return fmt.Errorf("snapshot %q: %w", s.Name, err)
	}
	return nil
}

// Removal is how far Remove goes.
type Removal int

const (
	// Unmounted removes only what is not mounted.
	Unmounted Removal = iota
	// Unmounting unmounts first.
	Unmounting
)
