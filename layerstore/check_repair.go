// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/strata-snapshotter/strata/internal/durable"
)

// What follows changes a root that an Inspector holds. Errors have the classes of the
// file system's.

// TrashLayer moves layers/N to the trash. What is mounted on it is unmounted.
func (i *Inspector) TrashLayer(n uint64) error { return i.trash(i.s.layers, name(n)) }

// TrashSnapshot moves snapshots/N to the trash.
func (i *Inspector) TrashSnapshot(n uint64) error { return i.trash(i.s.snapshots, name(n)) }

// TrashStaging moves an entry of staging to the trash.
func (i *Inspector) TrashStaging(item string) error { return i.trash(i.s.staging, item) }

func (i *Inspector) trash(from *os.File, item string) error {
	if err := i.MakeDir(trashDir); err != nil {
		return err
	}
	return i.s.rootError(i.s.toTrash(from, item))
}

// TrashEmpty moves what is in the directory of views of nothing to the trash.
func (i *Inspector) TrashEmpty(item string) (err error) {
	dir, err := openDir(int(i.s.root.Fd()), emptyDir)
	if err != nil {
		return i.s.rootError(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := i.MakeDir(trashDir); err != nil {
		return err
	}
	return i.s.rootError(i.s.moveToTrash(dir, item, emptyDir))
}

// EmptyTrash deletes what is in the trash.
func (i *Inspector) EmptyTrash(ctx context.Context) error {
	for range 3 { // a deep tree leaves parts, which show up only then
		if err := i.s.EmptyTrash(ctx); err != nil {
			return err
		}
		if items, err := listDir(i.s.trash); err != nil || len(items) == 0 {
			return i.s.rootError(err)
		}
	}
	return nil
}

// Unpublish makes layers/N, whose transaction never came, snapshots/N again.
func (i *Inspector) Unpublish(n uint64) error {
	err := rename(i.s.layers, name(n), i.s.snapshots, name(n))
	if err == nil {
		err = errors.Join(i.s.layers.Sync(), i.s.snapshots.Sync())
	}
	return i.s.rootError(err)
}

// FinishPublish makes snapshots/N, whose layer is recorded, layers/N.
func (i *Inspector) FinishPublish(n uint64) error {
	err := rename(i.s.snapshots, name(n), i.s.layers, name(n))
	if err == nil {
		err = errors.Join(i.s.layers.Sync(), i.s.snapshots.Sync())
	}
	if err != nil {
		return i.s.rootError(err)
	}
	return i.DropWork(n)
}

// DropWork removes what layer n keeps of the time it was a snapshot.
func (i *Inspector) DropWork(n uint64) error {
	if err := i.MakeDir(trashDir); err != nil {
		return err
	}
	return i.s.DropWork(n)
}

// MakeWork makes the workdir of active snapshot n.
func (i *Inspector) MakeWork(n uint64) (err error) {
	dir, err := openDir(int(i.s.snapshots.Fd()), name(n))
	if err != nil {
		return i.s.rootError(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return i.s.rootError(errors.Join(mkdir(dir, workName, workMode), dir.Sync()))
}

// MakeDir makes a directory of the layout, if it is missing.
func (i *Inspector) MakeDir(base string) error {
	err := mkdir(i.s.root, base, DirMode(base))
	if errors.Is(err, unix.EEXIST) {
		err = nil
	}
	return i.s.rootError(errors.Join(err, i.open()))
}

// DirMode is the mode of a directory of the layout, and of what is numbered in it.
func DirMode(base string) uint32 {
	if base == emptyDir {
		return 0o755
	}
	return 0o700
}

// FixDir gives the directory with the path rel below the root, "." for the root, to this
// process's user, with the mode given.
func (i *Inspector) FixDir(rel string, mode uint32) (err error) {
	dir, err := openBeneath(i.s.root, rel)
	if err != nil {
		return i.s.rootError(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return i.s.rootError(errors.Join(dir.Chown(os.Geteuid(), os.Getegid()), unix.Fchmod(int(dir.Fd()), mode)))
}

// RemoveFile removes a file, with the path rel below the root, that Survey found.
func (i *Inspector) RemoveFile(rel string) (err error) {
	parent, base, err := openParent(i.s.root, rel)
	if err != nil {
		return i.s.rootError(err)
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	return i.s.rootError(errors.Join(unix.Unlinkat(int(parent.Fd()), base, 0), parent.Sync()))
}

// WriteManifest replaces layer.json of layer n. Its version and number are filled in.
func (i *Inspector) WriteManifest(n uint64, m Manifest) (err error) {
	m.Version, m.Number = manifestVersion, n
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	dir, err := openDir(int(i.s.layers.Fd()), name(n))
	if err != nil {
		return i.s.rootError(err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := durable.WriteFile(dir, layerFile, append(b, '\n'), 0o600); err != nil {
		return i.s.rootError(fmt.Errorf("layer %d: %w", n, err))
	}
	return i.s.rootError(dir.Sync())
}

// WriteNote writes the note on external layer n again, from its layer.json.
func (i *Inspector) WriteNote(n uint64, m Manifest) error {
	if err := i.MakeDir(externalDir); err != nil {
		return err
	}
	note := externalNote{Store: m.Store, Path: m.StoreLayer, DiffID: m.DiffID}
	if old, err := readNoteFile(i.s.externals.dir, n); err == nil {
		note.MapIDs = old.MapIDs
	}
	return i.s.rootError(i.s.writeNote(n, note))
}

// KnownFormat says whether this program can use a layer of that layer.json.
func (m Manifest) KnownFormat() bool {
	return m.Version == manifestVersion && (m.Format == FormatDirectory || m.Format == FormatExternal)
}
