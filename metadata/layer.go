// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Layer is what the store knows about a published layer.
type Layer struct {
	Number uint64
	// DiffID is set on a layer whose stream this process hashed and found to be
	// that, and which may therefore serve any chain. Empty: the layer is
	// private to the snapshots that refer to it.
	DiffID digest.Digest
	// Empty layers have no entries and add nothing to a stack.
	Empty bool
	// OpaqueRoot layers hide everything below them.
	OpaqueRoot bool
	// Usage is what the layer's directory takes on disk.
	Usage   snapshots.Usage
	Created time.Time // set by the store
}

const (
	layerVersion = 1

	layerEmpty      = 1 << 0
	layerOpaqueRoot = 1 << 1
	layerFlags      = layerEmpty | layerOpaqueRoot
)

func (l *Layer) encode() []byte {
	var flags uint64
	if l.Empty {
		flags |= layerEmpty
	}
	if l.OpaqueRoot {
		flags |= layerOpaqueRoot
	}
	b := make([]byte, 0, 64)
	b = append(b, layerVersion)
	b = binary.AppendUvarint(b, flags)
	b = binary.AppendVarint(b, l.Usage.Size)
	b = binary.AppendVarint(b, l.Usage.Inodes)
	b = binary.AppendVarint(b, l.Created.UnixNano())
	return appendString(b, l.DiffID.String())
}

func decodeLayer(n uint64, b []byte) (Layer, error) {
	d := &decoder{b: b}
	if v := d.byte(); v != layerVersion {
		d.fail("unknown version")
	}
	flags := d.uvarint()
	if flags&^layerFlags != 0 {
		d.fail("unknown flags")
	}
	l := Layer{Number: n, Empty: flags&layerEmpty != 0, OpaqueRoot: flags&layerOpaqueRoot != 0}
	l.Usage.Size = d.varint()
	l.Usage.Inodes = d.varint()
	l.Created = timeOf(d.varint())
	l.DiffID = digest.Digest(d.string())
	return l, d.finish()
}

// GetLayer returns layer n. ErrNotFound if there is none.
func (tx *Tx) GetLayer(n uint64) (Layer, error) {
	v := tx.bucket(bucketLayers).Get(numberKey(n))
	if v == nil {
		return Layer{}, fmt.Errorf("layer %d: %w", n, errdefs.ErrNotFound)
	}
	l, err := decodeLayer(n, v)
	if err != nil {
		return Layer{}, fmt.Errorf("layer %d: %w", n, err)
	}
	return l, nil
}

// HasLayer says whether layer n is in the store.
func (tx *Tx) HasLayer(n uint64) bool {
	return tx.bucket(bucketLayers).Get(numberKey(n)) != nil
}

// LayerByDiffID returns the layer published under diffID. ErrNotFound if there
// is none, ErrInvalidArgument if diffID is no digest.
func (tx *Tx) LayerByDiffID(diffID digest.Digest) (Layer, error) {
	k, err := digestKey(diffID)
	if err != nil {
		return Layer{}, err
	}
	v := tx.bucket(bucketDiffIDs).Get(k)
	if v == nil {
		return Layer{}, fmt.Errorf("layer with diffID %s: %w", diffID, errdefs.ErrNotFound)
	}
	return tx.GetLayer(numberOf(v))
}

// References returns the numbers of the snapshots that refer to layer n, the
// oldest first.
func (tx *Tx) References(n uint64) ([]uint64, error) {
	var refs []uint64
	err := tx.seconds(bucketRefs, n, func(s uint64) (bool, error) {
		refs = append(refs, s)
		return true, nil
	})
	return refs, err
}

// refer notes that snapshot n refers to layer l, and adds the layer if the store does
// not have it. If it has another one of that diffID, the reference is to that one: who
// extracts a layer that somebody else just published adopts it. The number of the layer
// that is referred to is returned.
func (tx *Tx) refer(l Layer, n uint64) (uint64, error) {
	if l.Number == 0 {
		return 0, fmt.Errorf("snapshot number %d is committed without a layer: %w", n, errdefs.ErrInvalidArgument)
	}
	if !tx.HasLayer(l.Number) {
		if l.DiffID != "" {
			same, err := tx.LayerByDiffID(l.DiffID)
			if err == nil {
				return same.Number, tx.put(bucketRefs, pair(same.Number, n), nil)
			}
			if !errdefs.IsNotFound(err) {
				return 0, err
			}
		}
		if err := tx.addLayer(l); err != nil {
			return 0, err
		}
	}
	return l.Number, tx.put(bucketRefs, pair(l.Number, n), nil)
}

func (tx *Tx) addLayer(l Layer) error {
	l.Created = now()
	if l.DiffID != "" {
		k, err := digestKey(l.DiffID)
		if err != nil {
			return err
		}
		if tx.bucket(bucketDiffIDs).Get(k) != nil {
			return fmt.Errorf("layer with diffID %s: %w", l.DiffID, errdefs.ErrAlreadyExists)
		}
		if err := tx.put(bucketDiffIDs, k, numberKey(l.Number)); err != nil {
			return err
		}
	}
	return tx.put(bucketLayers, numberKey(l.Number), l.encode())
}

// unrefer takes back a reference, and deletes a layer that has none left.
func (tx *Tx) unrefer(layer, snapshot uint64) (freed []uint64, err error) {
	if layer == 0 {
		return nil, nil
	}
	if err := tx.delete(bucketRefs, pair(layer, snapshot)); err != nil {
		return nil, err
	}
	if tx.hasSeconds(bucketRefs, layer) {
		return nil, nil
	}
	l, err := tx.GetLayer(layer)
	if errdefs.IsNotFound(err) {
		return nil, nil // nothing to free; the snapshot must still go
	}
	if err != nil {
		return nil, err
	}
	if l.DiffID != "" {
		k, err := digestKey(l.DiffID)
		if err != nil {
			return nil, err
		}
		if err := tx.delete(bucketDiffIDs, k); err != nil {
			return nil, err
		}
	}
	return []uint64{layer}, tx.delete(bucketLayers, numberKey(layer))
}
