// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/strata-snapshotter/strata/internal/durable"
	"github.com/strata-snapshotter/strata/internal/failpoint"
	"golang.org/x/sys/unix"
)

const layerFile = "layer.json"

// Manifest is what layer.json says of a layer.
type Manifest struct {
	Format  string `json:"format"` // FormatDirectory or FormatExternal
	Version int    `json:"version"`
	Number  uint64 `json:"number"`
	// DiffID is there if the layer's stream was hashed and was that.
	DiffID digest.Digest `json:"diffID,omitempty"`
	Empty  bool          `json:"empty,omitempty"`
	// OpaqueRoot layers hide everything below them.
	OpaqueRoot bool `json:"opaqueRoot,omitempty"`
	// Patch layers have directories only, with what chains say of a layer's. Answer is a
	// digest of all that is in one, by which the next chain with the same finds it. Patches
	// of before have none, and serve the one that they were made for.
	Patch  bool          `json:"patch,omitempty"`
	Answer digest.Digest `json:"answer,omitempty"`
	// Size is the length of the layer's stream, in bytes, where that was hashed.
	Size int64 `json:"size,omitempty"`
	// Needs is what the layer asks of those below it, for whoever extracts layers.
	Needs   json.RawMessage `json:"needs,omitempty"`
	Bytes   int64           `json:"bytes"`  // on disk, hard links once
	Inodes  int64           `json:"inodes"` // the layer's own directory included
	Created time.Time       `json:"created"`
	// Store and StoreLayer are, of external layers, the additional store and the
	// path of the directory in it.
	Store      string `json:"store,omitempty"`
	StoreLayer string `json:"storeLayer,omitempty"`
}

// FormatDirectory is a layer that is an overlay layer directory.
const FormatDirectory = "directory"

// manifestVersion is the version of layer.json that is written.
const manifestVersion = 1

// Publish makes the directory of active snapshot n, which Seal found to hold
// content, layer n. When it returns, the layer survives a power cut.
//
// The caller holds Begin(n), as with Place.
func (s *Store) Publish(n uint64, content Content) error {
	if err := s.Place(n, content); err != nil {
		return err
	}
	if err := s.SyncLayers(); err != nil {
		return errors.Join(err, s.Unpublish(n))
	}
	return nil
}

// SyncLayers makes the layers that were placed so far survive a power cut.
func (s *Store) SyncLayers() error {
	defer failpoint.Pass(failpoint.LayerSynced)
	return s.rootError(s.sync(s.syncLayers.Do))
}

// Place is Publish without the syncing of the directory that the layer is moved to,
// which comes with SyncLayers, before the transaction.
//
// The caller holds Begin(n) until the layer's transaction is committed, or
// until Unpublish took it back.
func (s *Store) Place(n uint64, content Content) (err error) {
	defer func() { err = s.rootError(err) }()
	if err := failpoint.Hit(failpoint.LayerManifest); err != nil {
		return err
	}
	if !content.Indexed {
		if err := s.dropIndex(n); err != nil {
			return err
		}
	}
	if err := s.writeManifest(n, content); err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.LayerPlace); err != nil {
		return err
	}
	if err := rename(s.snapshots, name(n), s.layers, name(n)); err != nil {
		return err
	}
	if err := failpoint.Hit(failpoint.LayerPlaced); err != nil {
		return errors.Join(err, s.Unpublish(n))
	}
	return nil
}

func (s *Store) writeManifest(n uint64, content Content) error {
	return s.putManifest(s.snapshots, n, Manifest{
		DiffID: content.DiffID, Empty: content.Empty, OpaqueRoot: content.OpaqueRoot,
		Bytes: content.Bytes, Inodes: content.Inodes, Size: content.Size, Needs: content.Needs,
	})
}

func (s *Store) putManifest(in *os.File, n uint64, m Manifest) (err error) {
	m.Version, m.Number, m.Created = manifestVersion, n, time.Now().UTC()
	if m.Format == "" {
		m.Format = FormatDirectory
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	dir, err := openDir(int(in.Fd()), name(n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	write := durable.WriteFile
	switch {
	case s.volatile:
		write = durable.ReplaceFile
	case s.inOrder:
		write = durable.PlaceFile
	}
	if err := write(dir, layerFile, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("number %d: %w", n, err)
	}
	if s.inOrder {
		return nil // syncing the directory it is moved to takes the name along
	}
	return s.sync(dir.Sync)
}

// Unpublish takes a Publish back: layer n, which no transaction names, is
// active snapshot n again.
func (s *Store) Unpublish(n uint64) error {
	failpoint.Pass(failpoint.LayerUnplace)
	err := rename(s.layers, name(n), s.snapshots, name(n))
	failpoint.Pass(failpoint.LayerUnplaced)
	if err == nil {
		err = s.sync(s.syncSnapshots.Do)
	}
	return s.rootError(err)
}

// DropWork removes what a layer keeps of the time it was a snapshot. It is
// called once the layer's transaction is committed; if that never comes to it,
// Recover does.
func (s *Store) DropWork(n uint64) error {
	dir, err := openDir(int(s.layers.Fd()), name(n))
	if err != nil {
		return s.rootError(err)
	}
	if err = failpoint.Hit(failpoint.LayerDropWork); err == nil {
		err = s.dropWork(dir, n)
	}
	return s.rootError(errors.Join(err, dir.Close()))
}

// dropWork tries the cheap way first: an unused workdir is empty.
func (s *Store) dropWork(layer *os.File, n uint64) error {
	if err := unix.Unlinkat(int(layer.Fd()), sealFile, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	err := unix.Unlinkat(int(layer.Fd()), workName, unix.AT_REMOVEDIR)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return s.moveToTrash(layer, workName, name(n)+"."+workName)
	}
	return err
}

// OpenLayer opens the directory of layer n, for reading.
func (s *Store) OpenLayer(n uint64) (*os.File, error) {
	dir, err := openDir(int(s.layers.Fd()), name(n)+"/"+fsName)
	return dir, s.rootError(err)
}

// ReadManifest reads layer.json of layer n.
func (s *Store) ReadManifest(n uint64) (m Manifest, err error) {
	fd, err := unix.Openat(int(s.layers.Fd()), name(n)+"/"+layerFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return m, s.rootError(fmt.Errorf("layer %d: open %s: %w", n, layerFile, err))
	}
	f := os.NewFile(uintptr(fd), layerFile)
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := json.NewDecoder(f).Decode(&m); err != nil {
		return m, classify(fmt.Errorf("layer %d: read %s: %w", n, layerFile, err))
	}
	return m, nil
}
