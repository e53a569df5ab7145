// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"golang.org/x/sys/unix"
)

// MountExternals mounts the layers of additional stores that are not mounted:
// all of them after a reboot, none after a restart. A store that is not there is
// warned of; CheckLayer tells whoever needs it. It is called before anything is
// served, and after Recover and Sweep, which settle what is a layer.
func (s *Store) MountExternals(ctx context.Context) error {
	missing := map[string][]error{}
	for _, n := range s.externals.numbers() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.isBusy(n) {
			continue
		}
		there, err := s.dropStaleNote(n)
		if err != nil {
			return s.rootError(err)
		}
		if !there {
			continue
		}
		if err := s.checkExternal(n); err != nil {
			note, _ := s.externals.get(n)
			missing[note.Store] = append(missing[note.Store], err)
		}
	}
	for _, store := range slices.Sorted(maps.Keys(missing)) {
		log.G(ctx).WithError(missing[store][0]).WithField("store", store).WithField("layers", len(missing[store])).
			Warn("layers of an additional store can't be mounted: snapshots that stand on them can't be used until they can")
	}
	return nil
}

// dropStaleNote forgets a layer that a crash kept from being made, or that was
// removed just before one.
func (s *Store) dropStaleNote(n uint64) (there bool, err error) {
	s.externals.changing.Lock()
	defer s.externals.changing.Unlock()
	if there, err = exists(s.layers, name(n)); there || err != nil {
		return there, err
	}
	return false, s.forgetNote(n)
}

// CheckExternals says whether those of the layers that are in additional stores
// can be used, and mounts them if a store is back: ErrUnavailable names the
// directory that is not there and what to do about it. Other layers are passed
// over.
func (s *Store) CheckExternals(numbers []uint64) error {
	for _, n := range numbers {
		if err := s.checkExternal(n); err != nil {
			return err
		}
	}
	return nil
}

// checkExternal makes sure that an external layer is mounted, and not of a
// directory that was deleted. It costs a system call if all is well.
func (s *Store) checkExternal(n uint64) error {
	if _, ok := s.externals.get(n); !ok {
		return nil
	}
	rel := name(n) + "/" + fsName
	mounted, deleted, err := mountedAt(s.layers, rel)
	if err == nil && mounted && !deleted {
		return nil
	}
	s.externals.changing.Lock()
	defer s.externals.changing.Unlock()
	note, ok := s.externals.get(n)
	if !ok {
		return nil // removed meanwhile
	}
	mounted, deleted, err = mountedAt(s.layers, rel) // by somebody else meanwhile?
	if err == nil && mounted && !deleted {
		return nil
	}
	if err := s.mountExternal(n, note); err != nil {
		return s.rootError(fmt.Errorf("layer %d (%s) is in the additional store %s: %w", n, note.DiffID, note.Store, err))
	}
	return nil
}

// mountExternal mounts a layer in place of what is mounted there, if anything.
// The caller holds externals.changing.
func (s *Store) mountExternal(n uint64, note externalNote) (err error) {
	source, err := note.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	bind, err := newBind(source, note.MapIDs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bind.close()) }()
	dir, err := openDir(int(s.layers.Fd()), name(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := detach(dir, fsName); err != nil {
		return err
	}
	return bind.attach(dir, fsName)
}

// open opens the layer's directory in its store. The path of a store is the
// administrator's; below it no link is followed.
func (e externalNote) open() (_ *os.File, err error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(e.Store, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, e.gone(e.Store, err)
	}
	store := os.NewFile(uintptr(fd), e.Store)
	defer func() { err = errors.Join(err, store.Close()) }()
	how := &unix.OpenHow{Flags: dirFlags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	fd, err = retry(func() (int, error) { return unix.Openat2(int(store.Fd()), e.Path, how) })
	if errors.Is(err, unix.ENOSYS) {
		fd, err = openByComponent(store, e.Path)
	}
	if err != nil {
		return nil, e.gone(e.Store+"/"+e.Path, err)
	}
	return os.NewFile(uintptr(fd), e.Path), nil
}

func (e externalNote) gone(path string, err error) error {
	return fmt.Errorf("directory %s can't be opened, mount the store or export the layer to it again, or remove the images that use it: %w (%w)", path, err, errdefs.ErrUnavailable)
}

// layerToTrash moves a layer to the trash. What is mounted on it is unmounted
// first: a mount moves along with the directory it is on, and deleting through it
// would reach into the store.
func (s *Store) layerToTrash(item string) error {
	n, isNumber := parseName(item)
	mounted, _, err := mountedAt(s.layers, item+"/"+fsName)
	if _, known := s.externals.get(n); !isNumber || !known && (err != nil || !mounted) {
		return s.moveToTrash(s.layers, item, item)
	}
	s.externals.changing.Lock()
	defer s.externals.changing.Unlock()
	dir, err := openDir(int(s.layers.Fd()), item)
	if err == nil {
		err = errors.Join(detach(dir, fsName), dir.Close())
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := s.moveToTrash(s.layers, item, item); err != nil {
		return err
	}
	failpoint.Pass(failpoint.ExternalForget)
	return s.forgetNote(n)
}
